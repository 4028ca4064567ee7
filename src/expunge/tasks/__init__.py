"""Tasks: what was damaged (truth) and what a method may see (split)."""
