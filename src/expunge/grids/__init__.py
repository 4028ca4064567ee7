"""Benchmark settings by data set: deviations from the papers' defaults, and nothing else."""
