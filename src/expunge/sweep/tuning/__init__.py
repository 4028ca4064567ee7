"""The parts of a search for a method's settings."""
