"""Relearning: shake what was memorised loose, and learn again what is trusted."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from torch import nn

from expunge.data.examples import batch_count
from expunge.errors import Diverged, InvalidInput
from expunge.methods.base import Method, Needs, Reference, Request, positive, searched
from expunge.methods.given_labels import second_answers
from expunge.methods.relearning import Run, nothing_to_repair
from expunge.training.continued import continued
from expunge.training.frozen_prefix import frozen_prefix
from expunge.training.loop import predict
from expunge.training.recipe import Optimiser, Recipe

_SMALLEST_BATCH = 16
"""That a batch is halved to: with 8 a rare class is hardly told from the others (results/relearn.md)."""
_NEIGHBOURS = 0.4
"""Epochs that a forward pass, and the search, cost."""
_ATTEMPTS = 3
"""Times the work is begun, each with less shrinking and half the learning rate, before it is given up."""


@dataclass(frozen=True, kw_only=True)
class Relearn(Method):
    """Shrink the weights, then train a few passes that learn trusted labels and unlearn flagged ones.

    K is the forget set. An example is flagged (S, at first K), quarantined or trusted (T, all others).

    1. Neighbours: unlisted examples with the features of K are quarantined, and as many unlisted others of their
       label beside them, as a control (:func:`expunge.methods.feature_neighbours.feature_neighbours`).
    2. Shrink: theta <- a theta + (1 - a) theta_0, theta_0 the weights the first training began from if they are
       known (pretrained ones, an earlier checkpoint), else a fresh initialisation.
    3. R passes over all data. With p_i the softmax on example i in the step in which it is seen, before the
       weights are changed, and t_i <- m t_i + (1 - m) p_i, minimise the mean over the batch of

         i in T: ce(p_i, y_i) + lambda log(1 - <p_i, t_i>)
         i in S: -log(1 - p_i[y_i]), and from the second pass on ce(p_i, s_i),
                 s_i ~ t_i^2 without the entry of y_i

       Where K has examples of two labels that were exchanged, s_i is what the original network gives them when y_i is
       left out (:func:`expunge.methods.given_labels.second_answers`).

       Nothing is learned from the quarantined. After half of the passes they are judged: where the network
       gives another label to clearly more of them than of the control, those are flagged; the others are trusted
       again.
    4. Statistics of batch norms are estimated from T. Where a class is given less than half as often as its label is
       in T, the bias of the last layer brings it back
       (:func:`expunge.training.class_shares.bring_back_lost_classes`).

    5. Where the network gives most of ten or more of K with one label that label, others have taught it again what
       they share. It is looked inside it once more, which finds them then, and everything is done again with those in
       quarantine; the better result is returned.

    What frozen first blocks put out is computed once, where training does not change it.

    The weights make one pass a training epoch; the judging costs nothing, since it uses the predictions that were
    made anyway. Where the network gives few of K their given label, there is nothing to repair: it is returned as it
    was. A pass that diverges is made again from its start at half the learning rate. If the network does not come
    back to half of its accuracy on T, everything begins again with less shrinking.

    Symbols: a -> ``keep``, R -> ``epochs``, lambda -> ``early_learning``, m -> ``memory``.

    Args:
        epochs: passes over the training set, at least 2.
        least_steps: where the passes have fewer steps than these, the batch is halved, to 16 at the least, and
            then there are more passes.
        keep: share of the weights that is kept in step 2; 1 to leave them as they are. By default 0 where theta_0 is
            known, 1 for other networks with layer normalisation, and for all others 0.4, or 0.55 with batch
            normalisation and an optimiser of Adam's kind; 0.7 at least where there are fewer than 1,000 examples to
            come back with; 0.85 at least for a network that gives less than 97 % of
            the retained examples their label (it has memorised little), and a quarter of the learning rate if it was
            trained with augmentation.
        early_learning: weight of the term that holds the network to what it learns first; it keeps wrong labels
            that nobody listed from being memorised.
        memory: share of the former average that an average prediction keeps.
        not_label: weight of -log(1 - p_i[y_i]).
        own_label: weight of ce(p_i, s_i).
        neighbours: make step 1.
        separation: of step 1, see there.
        neighbour_cap: of step 1: at most this share of a label's unlisted examples.
        class_shares: bring lost classes back in step 4.
        least_learned: share of K whose given label the network must give, for there to be something to repair.
        lr: learning rate at its height; by default that of the first training.
        batch_size: examples a step; by default that of the first training.
        optimiser: "sgd", "adam" or "adamw"; by default that of the first training.
        momentum: of "sgd".
        weight_decay: L2 on every parameter ("adamw": decoupled); by default that of the first training.
        augment: train on augmented inputs; by default as the first training did.

    Where it is not known how the network was first trained, SGD is used for networks with batch normalisation and
    AdamW for others, at the highest of a few rates that leaves retained examples known.

    Raises:
        InvalidInput: a setting outside its range; all that could be trained is frozen; weights to go back to that
            do not fit.
        Diverged: training led to NaN, or the network did not come back, at lower rates too.

    Source: this project. Step 2: Ash and Adams, NeurIPS 2020 (shrink and perturb); lambda: Liu et al., NeurIPS 2020
    (early-learning regularisation, equation 6); -log(1 - p): Yu et al., ECCV 2018 (complementary labels); second
    answers: after Zhou et al., CVPR 2025 (DELETE).

    Departures: targets of early-learning regularisation are not normalised, so that it sets in with the passes; the
    published number of epochs is 120 and more.
    """

    name = "relearn"
    needs = Needs.FORGET | Needs.RETAIN
    uses = Needs.RECIPE | Needs.START
    reference = Reference(
        "Relearning with early-learning targets and complementary labels",
        "this project; after Ash, Adams (shrink and perturb) and Liu, Niles-Weed, Razavian, Fernandez-Granda",
        2026,
        "this project",
    )

    epochs: int = 3
    least_steps: int = 160
    keep: float | None = None
    early_learning: float = searched(5.0, 1.0, 8.0)
    memory: float = 0.7
    not_label: float = searched(1.0, 0.2, 2.0)
    own_label: float = 1.0
    neighbours: bool = True
    separation: float = 3.4
    neighbour_cap: float = 0.5
    class_shares: bool = True
    least_learned: float = 0.2
    lr: float | None = None
    batch_size: int | None = None
    optimiser: str | None = None
    momentum: float = 0.9
    weight_decay: float | None = None
    augment: bool | None = None

    def __post_init__(self) -> None:
        positive(separation=self.separation)
        for name in ("lr", "batch_size"):
            if (value := getattr(self, name)) is not None:
                positive(**{name: value})
        for name in ("memory", "neighbour_cap", "least_learned", "keep"):
            if (value := getattr(self, name)) is not None and not 0 <= value <= 1:
                raise InvalidInput(f"{name} must lie in [0, 1], got {value}")
        for name in ("early_learning", "not_label", "own_label"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"{name} is a weight of at least 0, got {getattr(self, name)}")
        if self.epochs < 2:
            raise InvalidInput(
                f"epochs must be at least 2: one to judge by, one to learn from; got {self.epochs}"
            )
        if self.least_steps < 0:
            raise InvalidInput(f"least_steps is a number of steps, at least 0, got {self.least_steps}")
        Optimiser(
            name=self.optimiser or "sgd",
            lr=self.lr or 0.1,
            momentum=self.momentum,
            weight_decay=self.weight_decay or 0.0,
        )

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """Epochs of a training set that is not small."""
        return self.epochs + _NEIGHBOURS

    @property
    def may_repeat(self) -> bool:
        """Step 5."""
        return self.neighbours

    def epochs_on(self, n_train: int, batch_size: int, recipe: Recipe | None) -> float:
        """Return the passes over ``n_train`` examples, and a forward pass for the neighbours, as epochs."""
        return self.passes(n_train, batch_size)[1] + _NEIGHBOURS

    def passes(self, n_train: int, batch_size: int) -> tuple[int, int]:
        """Return the batch size and the passes over ``n_train`` examples, by ``least_steps``."""
        size = batch_size
        while (
            size >= 2 * _SMALLEST_BATCH and (self.epochs + 1) * batch_count(n_train, size) < self.least_steps
        ):
            size //= 2
        return size, max(self.epochs, math.ceil(self.least_steps / batch_count(n_train, size)))

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Relearn; again with less shrinking if the network does not come back."""
        how = continued(
            model, request.retain, request.numerics, request.known_recipe,
            optimiser=self.optimiser, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay,
            batch_size=self.batch_size, augment=self.augment, generator=request.generator("rate"),
            meter=request.meter,
        )  # fmt: skip
        answers = predict(model, request.forget, request.numerics)
        if nothing_to_repair(self, answers, request):
            return model
        told = second_answers(answers, request.forget.labels)
        prefix = None if how.augment else frozen_prefix(model, request.train, request.numerics)
        for attempt in range(_ATTEMPTS):
            run = Run(self, copy.deepcopy(model), request, how, attempt, prefix, told=told)
            if run.relearn():
                if (neighbours := run.look_again()) is not None:
                    again = Run(self, copy.deepcopy(model), request, how, attempt, prefix, neighbours, told)
                    run = _better(run, again, request)
                return run.finished()
            request.note(
                f"with {run.keep:.2f} of the weights kept the network did not come back to half of its accuracy; begun "
                "again with less shrinking and half the learning rate"
            )
        raise Diverged(
            f"in {_ATTEMPTS} attempts the network did not come back to half of its accuracy on retained examples, the "
            f"last at learning rate {how.optimiser.lr / 2 ** (_ATTEMPTS - 1):g}; give the optimiser and rate of the "
            "first training, or keep=1"
        )


def _better(first: Run, again: Run, request: Request) -> Run:
    """Relearn once more; return the second run where fewer of the known ones have their label after it."""
    try:
        better = again.relearn() and again.known_given < first.known_given
        outcome = f"{again.known_given:.0%}"
    except Diverged:
        better, outcome = False, "it diverged"
    request.note(
        f"unlisted examples had taught the network again what the listed ones have in common: it gave "
        f"{first.known_given:.0%} of these their label. Relearned once more without "
        f"{int(again.neighbours.found.sum()):,} that look like them inside it: {outcome}"
        + ("" if better else "; the first result is kept")
    )
    return again if better else first
