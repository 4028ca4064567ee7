"""Repairs of a network on digits whose verdict is known beforehand, and what their report rests on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.evaluation.verdict import CAVEAT
from expunge.inputs.architecture import build_architecture
from expunge.inputs.sources import load_training_data
from expunge.repair.clean import Cleaned, clean
from expunge.repair.clean_files import write_files
from expunge.repair.job import Job
from expunge.repair.prepare import prepare
from expunge.training.recipe import Optimiser, Recipe

pytestmark = pytest.mark.trains

ARCH = "expunge:resnet9?width=8"
TRAINING = Recipe(epochs=12, batch_size=32, optimiser=Optimiser(lr=0.05), schedule="cosine", augment=False)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 digits, 30 with a wrong label, and a network that was trained on them; 300 others."""
    from sklearn.datasets import load_digits

    root = tmp_path_factory.mktemp("digits")
    found, draw = load_digits(), np.random.default_rng(0)
    order = draw.permutation(len(found.target))
    pixels = (found.images * (255 / 16)).round().astype(np.uint8)
    train, held = order[:400], order[400:700]
    labels = found.target[train].copy()
    labels[:30] = (labels[:30] + draw.integers(1, 10, 30)) % 10
    np.savez(
        root / "digits.npz", images=pixels[train], labels=labels, true_label=found.target[train],
        is_bad=np.arange(400) < 30, sample=(np.arange(400) >= 30) & (np.arange(400) < 90),
        test_images=pixels[held], test_labels=found.target[held],
    )  # fmt: skip
    data = load_training_data(str(root / "digits.npz"))
    batch = next(data.examples.batches(400))
    torch.manual_seed(0)
    model = build_architecture(ARCH, shape=data.shape, n_classes=10)
    optimizer, source = torch.optim.Adam(model.parameters(), 0.003), torch.Generator().manual_seed(0)
    for _ in range(25):
        for rows in torch.randperm(400, generator=source).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.x[rows]), batch.y[rows]).backward()
            optimizer.step()
    torch.save(model.state_dict(), root / "net.pt")
    return root


def job(root: Path, **given: Any) -> Job:
    plain = Job(
        checkpoint=root / "net.pt", arch=ARCH, data=str(root / "digits.npz"), forget="column:is_bad",
        validation=str(root / "digits.npz"), device="cpu",
    )  # fmt: skip
    return replace(plain, **given)


def repaired(tmp_path: Path, wanted: Job) -> tuple[Cleaned, dict[str, Any], str]:
    """Return the repair, and its two reports."""
    prepared = prepare(wanted)
    cleaned = clean(prepared, tmp_path, lambda share, doing: None)
    write_files(prepared, cleaned, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    return cleaned, report, (tmp_path / "report.html").read_text()


def retrained(root: Path, **given: Any) -> Job:
    return job(root, method="retrain", recipe=TRAINING, **given)


def test_a_good_repair(digits: Path, tmp_path: Path) -> None:
    cleaned, report, page = repaired(tmp_path, retrained(digits))
    verdict = cleaned.audit.verdict
    assert verdict.outcomes == ("forgot",), verdict.findings
    assert report["verdict"] == "it worked"
    assert report["reasons"] == [finding.sentence for finding in verdict.findings]
    # The audit and the table before and after are of the same file.
    rows = {row.name: row for row in cleaned.audit.rows}
    assert rows["forget_accuracy"].value("unlearned") == pytest.approx(cleaned.after.forget_as_stored.value)
    assert cleaned.after.validation is not None
    assert rows["test_accuracy"].value("unlearned") == pytest.approx(cleaned.after.validation.value)
    assert report["audit"]["caveat"] == CAVEAT
    assert report["audit"]["counts"]["labels"] == "wrong"
    names = {entry["name"] for entry in report["audit"]["measurements"]}
    assert {"forget_accuracy", "test_accuracy", "healed", "confidence_attack", "weight_distance"} <= names
    for said in ("<summary>Audit</summary>", CAVEAT, "forget accuracy", "Not defined here, because",
                 "no true label is given that differs from the given one (healed"):  # fmt: skip
        assert said in page


def test_true_labels_are_measured_and_judged(digits: Path, tmp_path: Path) -> None:
    cleaned, report, page = repaired(
        tmp_path, retrained(digits, truth="column:true_label", learn_truth=False)
    )
    rows = {row.name: row for row in cleaned.audit.rows}
    assert cleaned.after.healed_known is not None
    assert rows["healed_known"].value("unlearned") == pytest.approx(cleaned.after.healed_known.value)
    assert "no true label" not in page
    assert report["verdict"] == "it worked"


def test_a_method_that_does_nothing(digits: Path, tmp_path: Path) -> None:
    given = job(digits, method="finetune", settings={"epochs": 1, "lr": 1e-7})
    cleaned, report, page = repaired(tmp_path, given)
    assert cleaned.audit.verdict.outcomes == ("did not forget",)
    assert report["verdict"] == "it did not work: retrain"
    assert "of the forget set are still predicted (original" in report["reasons"][0]
    assert report["audit"]["verdict"]["findings"][0]["numbers"]["after"] > 0.5
    assert report["reasons"][0] in page


def test_a_destroyed_model(digits: Path, tmp_path: Path) -> None:
    given = job(digits, method="npo", settings={"lr": 0.5, "passes": 40, "threshold": 0.0})
    cleaned, report, _ = repaired(tmp_path, given)
    assert cleaned.audit.verdict.outcomes[0] == "damaged utility"
    assert report["verdict"] == "it did not work: retrain"
    assert "below the original model's" in report["reasons"][0]


def test_without_validation_data(digits: Path, tmp_path: Path) -> None:
    cleaned, _, page = repaired(tmp_path, retrained(digits, validation=None))
    assert cleaned.audit.verdict.worked
    assert any("No test data was given" in note for note in cleaned.audit.verdict.notes)
    assert "it needs examples that no model was trained on, which were not given" in page


def test_good_samples_cannot_be_judged_without_unseen_ones(
    digits: Path, tmp_path: Path, margin: Callable[..., None]
) -> None:
    # Long enough to learn the wrong labels again: without unseen data, utility is read from given labels.
    longer = replace(TRAINING, epochs=40)
    given = replace(
        retrained(digits, forget="column:sample", purpose="forget", validation=None), recipe=longer
    )
    cleaned, report, _ = repaired(tmp_path, given)
    margin("retained accuracy", cleaned.after.retained.value, above=cleaned.before.retained.value - 0.02)
    assert cleaned.audit.verdict.outcomes == ("undecided",)
    assert report["verdict"] == "undecided"


def test_a_reference_is_a_retrained_model(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    repaired(tmp_path / "first", retrained(digits))
    again = retrained(digits, seed=1, reference=tmp_path / "first" / "checkpoint.pt")
    cleaned, report, page = repaired(tmp_path, again)
    assert cleaned.audit.facts.roles == ("original", "unlearned", "retrained")
    assert cleaned.audit.verdict.worked, cleaned.audit.verdict.findings
    assert report["audit"]["reference"] == "retrained"
    assert report["reference"]["forget_as_stored"]["of"] == 30
    assert '<th scope="col">reference</th>' in page
