"""The report of a repair: one HTML file that needs no script and sends no request."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.data.reader import Plan
from expunge.evaluation.audit_table import AIMS, figure, legend, main_rows, reading, undefined
from expunge.evaluation.rows import ROLES
from expunge.evaluation.verdict import CAVEAT
from expunge.inputs.pictures import DecodedSource
from expunge.repair.clean import Cleaned
from expunge.repair.in_words import REJECTED, cost_sentence, one_sentence, remarks, result_rows
from expunge.repair.prepare import Prepared
from expunge.results.html import render
from expunge.results.png import data_uri
from expunge.results.wording import MISSING

_SHOWN = 50
_PICTURES = 12
_LARGEST = 96
"""Pixels of a picture's longer side."""
_NAMES = {"original": "before", "unlearned": "after", "retrained": "reference"}


def clean_page(prepared: Prepared, cleaned: Cleaned) -> str:
    """Return the page; the same repair gives the same bytes but for the seconds it took."""
    audit, classes = cleaned.audit, prepared.data.classes
    roles = [role for role in ROLES if role in audit.facts.roles]
    rejected = [REJECTED.format(file=cleaned.checkpoint)] if cleaned.rejected else []
    return render(
        "repair.html.j2",
        prepared=prepared,
        cleaned=cleaned,
        labels=prepared.data.examples.labels.cpu(),
        class_name=lambda label: classes[int(label)] if label >= 0 else MISSING,
        shown=_SHOWN,
        sentence=one_sentence(prepared, cleaned),
        caveat=CAVEAT,
        remarks=[*remarks(prepared, cleaned), *rejected],
        results=result_rows(prepared, cleaned),
        audit_headings=["measurement", *(_NAMES[role] for role in roles), "aim", "reading"],
        audit_rows=[
            [
                row.name.replace("_", " "),
                *(figure(row.value(role), row) for role in roles),
                AIMS[row.metric.better],
                reading(row, audit.facts.reference),
            ]
            for row in main_rows(audit)
        ],
        legend=legend(audit),
        undefined=undefined(audit),
        cost=cost_sentence(cleaned),
        pictures=_pictures(prepared, cleaned),
    )


def _pictures(prepared: Prepared, cleaned: Cleaned) -> list[tuple[str, list[tuple[int, str]]]]:
    """Return groups of rows with their pictures; none for no images."""
    found = torch.zeros(0, dtype=torch.int64) if cleaned.found is None else cleaned.found.positions
    groups = (
        ("Listed rows", prepared.forget.positions.cpu()),
        ("Rows the method found, the worst first", found),
        ("Other rows that are no longer given their label", cleaned.disagreeing),
    )
    made = []
    for title, rows in groups:
        shown = thumbnails(prepared.data.examples, rows[:_PICTURES])
        if shown:
            made.append((title, list(zip(rows.tolist(), shown, strict=False))))
    return made


def thumbnails(examples: Examples, positions: Tensor) -> list[str]:
    """Return PNG pictures of ``positions`` as data URIs; none where inputs are no images."""
    made = []
    for row in examples.index[positions.to(examples.device)].tolist():
        pixels = _pixels(examples, row)
        if pixels is None:
            return []
        if max(pixels.shape[1:]) > _LARGEST:
            scale = _LARGEST / max(pixels.shape[1:])
            small = F.interpolate(pixels[None].float(), scale_factor=scale, mode="bilinear", antialias=True)
            pixels = small[0].round().clamp(0, 255).to(torch.uint8)
        made.append(data_uri(pixels))
    return made


def _pixels(examples: Examples, row: int) -> Tensor | None:
    """Return uint8 (C, H, W) with one or three channels; ``None`` for what is no picture."""
    source = examples.source
    if isinstance(source, ImageSource):
        found = source.images[row].cpu()
    elif isinstance(source, DecodedSource):
        found = source.decoder(Plan([row]))[0]
    else:
        x = source.fetch(torch.tensor([row], device=examples.device), None)[0].cpu()
        if x.ndim != 3 or not x.is_floating_point():
            return None
        # Normalised in a way that nobody says: the darkest becomes black, the brightest white.
        low, high = x.min(), x.max()
        found = (255 * (x - low) / (high - low).clamp(min=1e-9)).round().to(torch.uint8)
    return found if len(found) in (1, 3) else None
