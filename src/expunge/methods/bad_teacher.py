"""A good teacher for the remaining data and a random one for the forget set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from expunge.data.examples import Batch
from expunge.errors import InvalidInput
from expunge.methods.base import Reference, Request, positive, searched
from expunge.methods.relabelling import Relabelling
from expunge.methods.teacher import divergence, frozen, softened
from expunge.training.initialisation import fresh_copy
from expunge.training.loop import Loss
from expunge.training.recipe import Recipe

_SAMPLES, _WHOLE_CLASSES = 7.2, 0.77
"""Temperatures of NatMU's comparison."""


@dataclass(frozen=True, kw_only=True)
class BadTeacher(Relabelling):
    """Teach the model its own predictions on remaining data and a random network's on the forget set.

    min_theta  mean over D_r' ∪ D_f of KL(p_T(x) || softmax(f_theta(x) / T)),
    p_T = softmax(f_s(x) / T) for x in D_r', softmax(f_d(x) / T) for x in D_f.
    f_s is the model at the start, f_d the same architecture freshly initialised, both frozen in evaluation
    mode. D_r' is a share of D_r drawn once; the loss has no factor T^2.

    Symbols: T -> ``temperature``, |D_r'| / |D_r| -> ``retain_share``.

    Args:
        temperature: divides the logits of teachers and student; ``None`` is 0.77 where the forget set is whole classes,
            else 7.2.
        retain_share: share of the remaining data that is used (published 0.3).

    Raises:
        InvalidInput: a setting out of its range; a network that cannot be initialised anew.

    Source: Chundawat et al. (AAAI 2023). The defaults are those with which NatMU (He et al., 2025) compares on
    CIFAR-10, where all remaining data are used: sample-wise, but for temperature and head, which it sets apart for
    whole classes.

    Departures: the remaining data are augmented (in NatMU's comparison plain; ``augment=False``). For whole classes
    that comparison takes lr=3.4e-5 and weight_decay=0 too.
    """

    name = "bad_teacher"
    reference = Reference(
        "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks Using an Incompetent Teacher",
        "Chundawat, Tarun, Mandal, Kankanhalli",
        2023,
        "AAAI",
    )

    lr: float = searched(5e-5, 1e-5, 1e-3, log=True)
    weight_decay: float = searched(9e-4, 0.0, 1e-3)
    temperature: float | None = searched(None, 0.5, 10.0, log=True)
    retain_share: float = 1.0
    reinit_head: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature is not None:
            positive(temperature=self.temperature)
        if not 0 < self.retain_share <= 1:
            raise InvalidInput(
                f"retain_share must lie in (0, 1], the share of the remaining data, got {self.retain_share}"
            )

    def typical_epochs(self, recipe: Recipe | None) -> float:
        """The passes, each with one more forward pass for a teacher."""
        return self.epochs * self.retain_share * 4 / 3

    def unlearn(self, model: nn.Module, request: Request) -> nn.Module:
        """Train in place and return ``model``."""
        numerics, retain = request.numerics, request.retain
        temperature = self.temperature or (_WHOLE_CLASSES if request.whole_classes else _SAMPLES)
        random = fresh_copy(model, request.generator("incompetent"))
        competent, incompetent = frozen(model, numerics), frozen(random, numerics)
        request.meter.parameters["during"] = 3 * request.meter.parameters["before"]
        self.prepare_head(model, request)
        if self.retain_share < 1:
            chosen = torch.randperm(len(retain), generator=request.generator("share"))
            retain = retain.select(chosen[: round(self.retain_share * len(retain))])
        start = len(retain)

        def distil(model: nn.Module, batch: Batch) -> Loss:
            logits = model(batch.x)
            forget = batch.index >= start
            target = torch.empty(logits.shape, device=logits.device)
            # Each teacher sees only its own examples: in evaluation mode they do not depend on the others. Sorted, so
            # that an accelerator is waited for once, for their number.
            order, count = forget.int().argsort(stable=True), int(forget.sum())
            parts = torch.split(order, [len(order) - count, count])
            for teacher, rows in zip((competent, incompetent), parts, strict=True):
                if len(rows):
                    target[rows] = softened(teacher(batch.x[rows]), temperature)
            return Loss(divergence(logits, target, temperature).mean(), len(batch))

        self.learn(model, request, request.forget, retain=retain, objective=distil)
        return model
