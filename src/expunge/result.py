"""What ``expunge.unlearn`` returns: the model, and what can be asked of it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from expunge.choice import Purpose
from expunge.data.examples import Examples
from expunge.methods.base import Unlearned
from expunge.methods.request import Found
from expunge.training.numerics import Numerics

if TYPE_CHECKING:
    import pandas as pd

    from expunge.evaluation.evidence import Audit
    from expunge.evaluation.verdict import Verdict


@dataclass(frozen=True, repr=False)
class Result(Unlearned):
    """The outcome of :func:`expunge.unlearn`.

    Attributes:
        original: the model that was passed in, untouched; change it after the first question, if at all.
        train: the training set.
        forget: int64 (K,), positions in it.
        validation: examples the model was not trained on, if they were given.
        purpose: "heal" or "forget".
        numerics: where it is measured.
    """

    original: nn.Module = field(default_factory=nn.Identity, kw_only=True)
    train: Examples = field(kw_only=True)
    forget: Tensor = field(kw_only=True)
    validation: Examples | None = field(default=None, kw_only=True)
    purpose: Purpose = field(default="heal", kw_only=True)
    numerics: Numerics = field(default_factory=Numerics, kw_only=True)

    @cached_property
    def audit(self) -> Audit:
        """Every measurement of the model beside the original; made when first asked for."""
        from expunge.evaluation.evidence import audit

        return audit(
            self.original, self.model, self.train, self.forget, self.validation,
            labels="wrong" if self.purpose == "heal" else "right", numerics=self.numerics, quick=True,
        )  # fmt: skip

    def verdict(self) -> Verdict:
        """Return whether it worked, by the rules of "expunge audit --quick"."""
        return self.audit.verdict

    def report(self) -> Report:
        """Return the verdict with its numbers, which a notebook shows as a table."""
        return Report(self)

    def rows(self) -> pd.DataFrame:
        """Return a line for each training row, in its order.

        Columns: ``given_label``, ``listed``, ``flagged`` (named by the method), ``score`` (of the method, NaN where it
        gives none; higher is more suspicious), ``before`` and ``after`` (the class that the model gives).
        """
        from expunge.training.loop import predict

        before, after = (
            predict(self.numerics.place(model), self.train, self.numerics).argmax(1).cpu().numpy()
            for model in (self.original, self.model)
        )
        given = self.train.labels.cpu().numpy()
        return frame_of_rows({"given_label": given}, self.forget, self.found, before, after)

    def save(self, path: Path | str) -> None:
        """Write the weights, whole or not at all: in the format of safetensors if the name ends so, else of torch.

        Raises:
            StoreError: the file cannot be written.
        """
        from safetensors.torch import save

        from expunge.store.atomic import write_output

        state = {name: tensor.detach().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        file = io.BytesIO()
        if str(path).endswith(".safetensors"):
            file.write(save(state))
        else:
            torch.save(state, file)
        write_output(path, file.getvalue(), "the model")


def frame_of_rows(
    first: Mapping[str, Any], listed: Tensor, found: Found | None, before: Any, after: Any
) -> pd.DataFrame:
    """Return a line for each training row, in its order, after the columns ``first``: see :meth:`Result.rows`."""
    import pandas as pd

    table = pd.DataFrame({**first, "listed": False, "flagged": False, "score": float("nan")})
    table.loc[listed.cpu().numpy(), "listed"] = True
    if found is not None:
        rows = found.positions.cpu().numpy()
        table.loc[rows, "flagged"] = True
        table.loc[rows, "score"] = found.scores.cpu().double().numpy()[rows]
    return table.assign(before=before, after=after)


class Report:
    """The verdict on a :class:`Result` with its numbers, as text and as HTML."""

    def __init__(self, result: Result) -> None:
        self.result = result

    @property
    def table(self) -> list[tuple[str, str, str, str]]:
        """The main measurements: name, before, after, which way is better."""
        from expunge.evaluation.audit_table import AIMS, figure, main_rows

        found = []
        for row in main_rows(self.result.audit):
            before, after = (figure(row.value(role), row) for role in ("original", "unlearned"))
            found.append((row.name.replace("_", " "), before, after, AIMS[row.metric.better]))
        return found

    def __str__(self) -> str:
        verdict, rows = self.result.verdict(), [("", "before", "after", "aim"), *self.table]
        widths = [max(len(row[column]) for row in rows) for column in range(4)]
        lines = [
            "  ".join(
                text.ljust(width) if column in (0, 3) else text.rjust(width)
                for column, (text, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        grade = verdict.grade[0].upper() + verdict.grade[1:]
        said = [f"- {finding.sentence}" for finding in verdict.findings]
        return "\n".join((f"{grade} ({self.result.method.name})", *said, "", *lines))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from expunge.results.html import render

        return render(
            "outcome.html.j2", verdict=self.result.verdict(), cost=repr(self.result), rows=self.table
        )

    def save(self, path: Path | str) -> None:
        """Write the report as an HTML file.

        Raises:
            StoreError: the file cannot be written.
        """
        from expunge.store.atomic import write_output

        page = f'<!doctype html><meta charset="utf-8"><title>expunge</title>{self._repr_html_()}'
        write_output(path, page.encode(), "the report")
