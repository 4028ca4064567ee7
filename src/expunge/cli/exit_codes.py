"""Exit codes of the commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expunge.evaluation.verdict import Verdict

DID_NOT_WORK = SOME_FAILED = NO_LIST = 3
"""A repair did not work, or there was nothing to do; some cell of a sweep failed; no usable list could be made."""
UNDECIDED = 4
"""Nothing that was measured decides it."""
INTERRUPTED = 130
"""Ctrl-C ended the command, as shells have it."""


def code_of(verdict: Verdict) -> int:
    """Return 0 where it worked, at least in part, 3 where it did not or there was little to do, 4 if undecided."""
    if verdict.did_not_work or verdict.outcomes == ("little to repair",):
        return DID_NOT_WORK
    return UNDECIDED if verdict.outcomes == ("undecided",) else 0
