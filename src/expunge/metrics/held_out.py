"""Which test images stand beside the forget set and which beside the retain set."""

from __future__ import annotations

from expunge.metrics.base import Evaluated, Scored


def unseen_like_forget(evaluated: Evaluated) -> Scored:
    """Return the examples that were never trained on and are most like the forget set.

    Where a class or a sub-class is forgotten these are its test images: against the whole test set an
    attack would tell that class from the others, whether or not anything is remembered. Elsewhere it is the
    whole test set.

    Raises:
        NotDefined: the forgotten class has no test images.
    """
    return evaluated.scored("forget_test") if "forget_test" in evaluated.truth.sets else evaluated.test


def unseen_like_retain(evaluated: Evaluated) -> Scored:
    """Return D_t: the test images outside a forgotten class or sub-class, elsewhere the whole test set.

    It is the test set that published tables of class-wise forgetting use.
    """
    return evaluated.scored("remaining_test") if "remaining_test" in evaluated.truth.sets else evaluated.test
