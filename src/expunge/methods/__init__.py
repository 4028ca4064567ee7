"""Unlearning methods: one method, one file."""
