"""Which training examples are bad, where nobody has said it yet."""
