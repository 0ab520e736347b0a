"""Measure errors at landmarks, at points and of whole fields, collect them in long tables, and summarize them."""
