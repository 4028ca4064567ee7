"""Records in a database and weights in files."""
