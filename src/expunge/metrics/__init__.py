"""Measurements of an unlearned model: one metric, one file."""
