"""Random displacement fields, synthetic pairs made with them, and training samples drawn from the pairs."""
