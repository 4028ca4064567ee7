"""What repairs a model of one's own: its checkpoint, its training data, the list of bad examples."""
