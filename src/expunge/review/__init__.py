"""Looking through a list of suspects: a page that shows them, and the decisions of a person."""
