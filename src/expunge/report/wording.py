"""Numbers as text, for the pages of :mod:`expunge.repair`."""

from expunge.results.wording import MISSING, count, duration, megabytes

__all__ = ["MISSING", "count", "duration", "megabytes"]
