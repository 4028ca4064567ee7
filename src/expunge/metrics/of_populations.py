"""Metrics that are read from populations of models, many for each method, not from one model."""

from __future__ import annotations

from typing import ClassVar

from expunge.metrics.base import Evaluated, Metric, NotDefined


class PopulationMetric(Metric):
    """A metric whose numbers :func:`expunge.populations.assess.assess_population` finds.

    Attributes:
        numbers: names of its numbers, the first for the whole.
    """

    needs_population = True
    numbers: ClassVar[tuple[str, ...]]

    def __call__(self, evaluated: Evaluated) -> float:
        """Refuse: one model is no population."""
        raise NotDefined(
            "it needs populations of models: name it in the metrics of a grid, or give --population to an audit"
        )


class ULiRA(PopulationMetric):
    """Accuracy of a per-example attack that tells models that unlearned x from models never trained on x.

    The likelihood-ratio attack of :func:`~expunge.metrics.ulira.leave_one_out`, mean over the forget set; 0.5 is
    chance. Beside it the area under its curve, that area's 95th percentile, and the true positive rate at 1 % false
    ones.
    """

    name = "ulira"
    better = "reference"
    source = "Hayes et al., arXiv 2403.01218"
    numbers = ("ulira_accuracy", "ulira_auc", "ulira_auc_p95", "ulira_tpr_at_1_percent")


class KLOM(PopulationMetric):
    """KL divergence between the margins of unlearned and of retrained models, 95th percentile over examples.

    :func:`~expunge.metrics.klom.klom` on the forget set, the retain set and the test set.
    """

    name = "klom"
    unit = "nats"
    better = "lower"
    source = "Georgiev et al., arXiv 2410.23232"
    numbers = ("klom_forget", "klom_retain", "klom_validation")


class ForgettingQuality(PopulationMetric):
    """Forgetting quality of the NeurIPS 2023 competition: how well attacks tell unlearned from retrained models.

    :func:`~expunge.metrics.forgetting_quality.forgetting_quality`, and the final score with utility.
    """

    name = "forgetting_quality"
    source = "Triantafillou et al., arXiv 2406.09073"
    numbers = ("forgetting_quality", "final_score")


class RULI(PopulationMetric):
    """Areas under the curves of RULI's two games, on the most memorised examples of the forget set.

    :func:`~expunge.metrics.ruli.privacy_game` and :func:`~expunge.metrics.ruli.efficacy_game`.
    """

    name = "ruli"
    better = "reference"
    source = "Naderloui et al., USENIX Security 2025, arXiv 2506.13009"
    numbers = ("ruli_privacy_auc", "ruli_efficacy_auc")
