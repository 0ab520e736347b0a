"""Public data sets as cohorts, and the embedded phantom."""
