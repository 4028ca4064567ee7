"""Tables and figures made from stored records; needs no torch."""
