"""AUS, the adaptive unlearning score: test accuracy kept, divided by what the forget set still shows."""

from __future__ import annotations

from expunge.metrics.base import Compares, Evaluated, Metric
from expunge.metrics.set_accuracy import set_accuracies


def adaptive_unlearning_score(
    original_test: float, test: float, forget: float, *, class_removed: bool
) -> float:
    """Return AUS = (1 - (a(theta_o, D_t) - a(theta_u, D_t))) / (1 + Delta).

    Delta = a(theta_u, D_f) where classes are removed, |a(theta_u, D_t) - a(theta_u, D_f)| elsewhere.

    Args:
        original_test: a(theta_o, D_t), in [0, 1].
        test: a(theta_u, D_t).
        forget: a(theta_u, D_f).
        class_removed: whether D_f is all of some classes.
    """
    distance = forget if class_removed else abs(test - forget)
    return (1 - (original_test - test)) / (1 + distance)


class AUS(Metric):
    """Adaptive unlearning score; 1 where no test accuracy is lost and the forget set is as it should be.

    AUS = (1 - (a(theta_o, D_t) - a(theta_u, D_t))) / (1 + Delta). Where D_f is all of some classes Delta =
    a(theta_u, D_f) and D_t leaves their test images out; elsewhere Delta = |a(theta_u, D_t) - a(theta_u, D_f)|.
    Above 1 where the model has gained test accuracy. No retrained model is read, so that a forget set that
    generalises better or worse than the test set is held against the model.
    """

    name = "aus"
    unit = "score"
    compares = Compares.ORIGINAL
    source = "Cotogni et al., arXiv 2312.02052 (DUCK)"

    def __call__(self, evaluated: Evaluated) -> float:
        """Return the score."""
        mine = set_accuracies(evaluated)
        return adaptive_unlearning_score(
            set_accuracies(evaluated.original).test,
            mine.test,
            mine.forget,
            class_removed=bool(evaluated.problem.split.forget_classes),
        )
