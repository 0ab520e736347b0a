"""Errors at landmarks, at points and of whole fields: measured, collected in long tables, summarized."""
