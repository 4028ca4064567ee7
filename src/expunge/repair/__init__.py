"""Three jobs on a model of one's own: find its bad examples, clean it of them, audit the result."""
