"""Dedicated neurons: added to a network, reached by routes, discarded again."""
