"""What the pages of :mod:`expunge.repair` are still built from."""
