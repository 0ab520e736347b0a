"""What an experiment is: its config and cohort, their checks, what it will take, where its results come from."""
