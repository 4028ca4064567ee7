"""From a grid of settings to finished records, and the tuning of those settings."""
