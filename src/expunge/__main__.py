"""``python -m expunge``: the command line."""

from __future__ import annotations

from expunge.cli import main

if __name__ == "__main__":
    main()
