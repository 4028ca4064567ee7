"""First training: recipe, loop, result."""
