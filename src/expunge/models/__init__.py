"""Plain networks; nothing here knows about unlearning."""
