"""Public data sets that become cohorts, and the embedded phantom."""
