"""Random displacement fields, the synthetic pairs made with them, and the training samples drawn from these."""
