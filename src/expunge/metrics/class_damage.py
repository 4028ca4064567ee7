"""Damage class by class: what an unlearning took from classes that were to stay."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.errors import InvalidInput
from expunge.metrics.accuracies import PerClassAccuracy
from expunge.metrics.base import Compares, Evaluated, Metric, NotDefined, Value


def class_drops(before: Sequence[float | None], after: Sequence[float | None]) -> dict[int, float]:
    """Class -> accuracy before minus accuracy after, in [-1, 1]; classes without images (``None``) are left out.

    Raises:
        InvalidInput: numbers of classes that differ, or no class that both know.
    """
    if len(before) != len(after):
        raise InvalidInput(f"one number of classes is expected, got {len(before)} and {len(after)}")
    drops = {
        label: first - second
        for label, (first, second) in enumerate(zip(before, after, strict=True))
        if first is not None and second is not None
    }
    if not drops:
        raise InvalidInput("no class has test images; nothing can be compared")
    return drops


class ClassDamage(Metric):
    """Largest drop of a class's test accuracy against the original model, forgotten classes left out.

    "class_damage_" + label is the drop of one class; below 0 it gained. Against a retrained model, or else an oracle,
    where one is given: "class_damage_to_reference", the largest drop below that model.
    """

    name = "class_damage"
    better = "lower"
    compares = Compares.ORIGINAL

    def drops(self, evaluated: Evaluated, other: Evaluated) -> dict[int, float]:
        """Class -> drop against ``other``, classes that stay only; not defined if there is none."""
        classes = PerClassAccuracy().classes
        found = class_drops(classes(other), classes(evaluated))
        forgotten = evaluated.problem.split.forget_classes
        kept = {label: drop for label, drop in found.items() if label not in forgotten}
        if not kept:
            raise NotDefined("no class that stays has test images")
        return kept

    def values(self, evaluated: Evaluated) -> dict[str, Value]:
        """The largest drop, that against a reference where there is one, and every class's."""
        drops = self.drops(evaluated, evaluated.original)
        found = {self.name: Value(max(drops.values()))}
        reference = self._reference(evaluated)
        if reference is not None:
            largest = max(self.drops(evaluated, reference).values())
            found[f"{self.name}_to_reference"] = Value(largest)
        return found | {f"{self.name}_{label}": Value(drop) for label, drop in drops.items()}

    @staticmethod
    def _reference(evaluated: Evaluated) -> Evaluated | None:
        for role in ("retrained", "oracle"):
            try:
                other: Evaluated = getattr(evaluated, role)
            except NotDefined:
                continue
            return other
        return None
