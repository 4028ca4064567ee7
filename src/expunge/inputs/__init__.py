"""What the user brings: a network and its checkpoint, training data, lists of rows, true labels."""
