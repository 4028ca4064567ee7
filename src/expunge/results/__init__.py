"""What is said, drawn and written about the records of a store."""
