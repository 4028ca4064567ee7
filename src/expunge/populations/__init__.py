"""Many models of one problem, and what only many models show about an unlearning method."""
