"""The page of the demo: before and after, in pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.repair.demo import TARGET, Demo
from expunge.results.html import render
from expunge.results.png import data_uri

_SHOWN = 12
"""Pictures in a row."""


def demo_page(demo: Demo) -> str:
    """Return the page: one HTML file that needs no script and sends no request."""
    damaged, found = demo.damaged, torch.zeros(len(demo.damaged.labels), dtype=torch.bool)
    found[demo.suspects] = True
    return render(
        "demo.html.j2",
        verdict=demo.audit.audit.verdict,
        n=len(damaged.labels),
        n_wrong=demo.job.wrong,
        n_poisoned=demo.job.poisoned,
        target=TARGET,
        numbers=_numbers(demo),
        clean_pictures=[data_uri(image) for image in damaged.held_out[:3]],
        triggers=_triggers(demo),
        labels=_labels(demo),
        listed=_listed(demo),
        n_listed=len(demo.suspects),
        n_right=int((found & damaged.bad).sum()),
        n_missed=int((damaged.bad & ~found).sum()),
        steps=_steps(demo),
        cost=demo.cleaned.cost_share,
        report=Path("cleaned", "report.html").as_posix(),
    )


def _numbers(demo: Demo) -> list[dict[str, str]]:
    damaged = demo.damaged

    def both(name: str, wanted: str, before: Tensor, after: Tensor) -> dict[str, str]:
        return {"name": name, "wanted": wanted, "before": _share(before), "after": _share(after)}

    bad, true, triggered = damaged.bad, damaged.true_labels, demo.before.triggered
    return [
        both(
            "of new digits are read correctly", "high",
            demo.before.held_out == damaged.held_out_labels, demo.after.held_out == damaged.held_out_labels,
        ),
        both(
            "of the damaged training digits are seen for what they are", "high",
            (demo.before.train == true)[bad], (demo.after.train == true)[bad],
        ),
        both(
            f"of new digits become a {TARGET} when they carry the trigger", "low",
            triggered == TARGET, demo.after.triggered == TARGET,
        ),
    ]  # fmt: skip


def _triggers(demo: Demo) -> list[dict[str, Any]]:
    """Return held-out digits with the trigger, one of each class and then more."""
    damaged = demo.damaged
    true = damaged.held_out_labels[damaged.held_out_labels != TARGET]
    return [
        _picture(damaged.triggered[row], demo.before.triggered[row], demo.after.triggered[row], true[row])
        for row in _of_each_class(true)
    ]


def _labels(demo: Demo) -> list[dict[str, Any]]:
    """Return training digits that were given a wrong label."""
    damaged = demo.damaged
    rows = (damaged.bad & ~damaged.poisoned).nonzero().flatten()
    return [
        _picture(damaged.images[row], demo.before.train[row], demo.after.train[row], damaged.true_labels[row])
        for row in rows[_of_each_class(damaged.true_labels[rows])]
    ]


def _listed(demo: Demo) -> list[dict[str, Any]]:
    """Return the most suspicious training digits."""
    damaged = demo.damaged
    return [
        {
            "picture": data_uri(damaged.images[row]),
            "label": int(damaged.labels[row]),
            "bad": bool(damaged.bad[row]),
            "why": "trigger" if damaged.poisoned[row] else "wrong label" if damaged.bad[row] else "good",
        }
        for row in demo.suspects[: 2 * _SHOWN]
    ]


def _of_each_class(labels: Tensor) -> Tensor:
    """Return positions of ``labels``: the first of each class, then the second, as many as are shown."""
    rank = torch.stack([(labels[:i] == labels[i]).sum() for i in range(len(labels))])
    return (rank * 100 + labels).argsort(stable=True)[:_SHOWN]


def _picture(image: Tensor, before: Tensor, after: Tensor, true: Tensor) -> dict[str, Any]:
    return {
        "picture": data_uri(image),
        "before": int(before), "before_right": bool(before == true),
        "after": int(after), "after_right": bool(after == true),
    }  # fmt: skip


def _steps(demo: Demo) -> list[dict[str, Any]]:
    return [
        {"name": name, "line": line, "seconds": demo.seconds.get(name)}
        for name, line in demo.commands.items()
    ]


def _share(right: Tensor) -> str:
    return f"{100 * float(right.float().mean()):.0f} %"
