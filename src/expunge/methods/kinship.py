"""Which examples stand and fall with the forget set: a probe of the model before it is changed."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from expunge.data.examples import Batch, Examples
from expunge.methods.base import Request
from expunge.methods.removal import RaiseLoss
from expunge.training.loop import fit, predict
from expunge.training.recipe import Optimiser

_PASSES, _BATCH = 30, 64
_FLOOR = 1e-3
"""Nats below which a change of the margin is noise."""


def label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p_j - log p_y, the best other class j against the stored label y: float32 (N,), in nats."""
    log_p = F.log_softmax(logits.float(), dim=1)
    stored = log_p.gather(1, labels[:, None])
    return (log_p.scatter(1, labels[:, None], -torch.inf).amax(1, keepdim=True) - stored).squeeze(1)


@dataclass(frozen=True)
class Cut:
    """Values cut in two where the variance within both parts is least.

    Attributes:
        threshold: between the parts.
        share: of the values above it.
        distance: between the parts' means.
        separation: ``distance`` over the pooled standard deviation of the parts; about 2.6 for one
            normal distribution cut in the middle.
    """

    threshold: float
    share: float
    distance: float
    separation: float


def two_means(values: Tensor) -> Cut:
    """Return the exact one-dimensional two-means cut of ``values`` (N,), N >= 4, with two values a side."""
    ordered = values.cpu().double().sort().values  # not every accelerator has float64
    n = len(ordered)
    sums, below = ordered.cumsum(0)[:-1], torch.arange(1, n, dtype=torch.float64)
    total = ordered.sum()
    between = (sums / below - (total - sums) / (n - below)).square() * below * (n - below)
    last = int(between[1:-1].argmax()) + 1  # one value has no variance
    low, high = ordered[: last + 1], ordered[last + 1 :]
    distance = float(high.mean() - low.mean())
    spread = float(((low.var() + high.var()) / 2).sqrt())
    return Cut(
        threshold=float((low[-1] + high[0]) / 2),
        share=len(high) / n,
        distance=distance,
        separation=distance / max(spread, 1e-12),
    )


def kin(
    model: nn.Module,
    request: Request,
    *,
    rise: float,
    lr: float,
    separation: float,
    share: float,
    level: float = 0.01,
) -> Tensor:
    """Return bool (N,) over the training set: examples that are corrupted in the way the forget set is.

    For each stored label y that D_f names more often than chance would (binomial test at ``level``): halve its
    members; raise the loss of one half until its mean margin has risen by ``rise`` nats; see how much the
    margin of everything else labelled y has risen with it. What shares a rule with D_f, such as a trigger,
    rises far more than clean images of y do. Both halves vote; the members of one half, watched while the
    other is raised, show where kin are to be found. Nobody is named unless the responses fall into two parts,
    the smaller above, where D_f's own members are.

    Args:
        model: the network before unlearning; it is left as it is.
        request: grants the training set and the forget set.
        rise: of the mean margin of a half, in nats; small, so that the response is to first order.
        lr: of the plain gradient steps.
        separation: at least this many pooled standard deviations between the two parts.
        share: at most this share of a label's unnamed examples is named.
        level: of the test for a label.
    """
    train, known = request.train, request.forget_mask
    start = label_margin(predict(model, train, request.numerics), train.labels)
    draw = request.generator("kin")
    named = torch.zeros_like(known)
    counts = torch.bincount(train.labels[known], minlength=train.n_classes).tolist()
    overall = torch.bincount(train.labels, minlength=train.n_classes).tolist()
    for label, count in enumerate(counts):
        if count < 2 or overall[label] - count < 10:
            continue
        chance = overall[label] / len(train)
        if binomtest(count, sum(counts), chance, alternative="greater").pvalue > level:
            continue
        rows = (train.labels == label).nonzero().flatten()
        member = known[rows]
        halves = rows[member][torch.randperm(count, generator=draw).to(rows.device)]
        votes, ranks = torch.zeros(int((~member).sum()), device=rows.device), []
        for half in (halves[0::2], halves[1::2]):
            raised = _raised(model, train.select(half), request, rise, lr)
            response = label_margin(predict(raised, train.select(rows), request.numerics), train.labels[rows])
            response = (response - start[rows]).clamp(min=_FLOOR)
            response = (response / response[~member].median()).log().clamp(min=-1.5)
            votes += response[~member] / 2
            watched = response[member & ~torch.isin(rows, half)]
            ranks += [(response[~member] < value).float().mean() for value in watched]
        cut = two_means(votes)
        # A member of the upper part has, on average, the rank 1 - share / 2.
        where = float(torch.stack(ranks).mean())
        if cut.separation >= separation and cut.share <= share and where >= 0.8 - cut.share / 2:
            named[rows[~member][votes > cut.threshold]] = True
    return named


def _raised(model: nn.Module, half: Examples, request: Request, rise: float, lr: float) -> nn.Module:
    probe = copy.deepcopy(model)
    optimizer = Optimiser(lr=lr, momentum=0.0, weight_decay=0.0).over(probe)
    objective = RaiseLoss("npo", _zero)
    order = request.generator("kin", "order")

    def margin() -> float:
        return float(label_margin(predict(probe, half, request.numerics), half.labels).mean())

    start = margin()
    for _ in range(_PASSES):
        fit(probe, [half.batches(_BATCH, order)], objective, optimizer, request.numerics, request.meter)
        if margin() - start > rise:
            break
    return probe


def _zero(batch: Batch) -> Tensor:
    return torch.zeros(len(batch), device=batch.y.device)
