"""From a grid of settings to finished records."""
