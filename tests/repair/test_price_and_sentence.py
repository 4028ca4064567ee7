"""The price of a repair, what it came to in a sentence, and small pictures of its rows."""

from __future__ import annotations

import base64
import copy
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from expunge.data.images import ImageSource
from expunge.data.joined import in_memory
from expunge.evaluation.before_after import Share
from expunge.inputs.sources import load_training_data
from expunge.methods.request import Found
from expunge.models.mlp import MLP
from expunge.repair import price as room
from expunge.repair.clean import Cleaned, clean
from expunge.repair.clean_page import thumbnails
from expunge.repair.in_words import fall_explained, one_sentence
from expunge.repair.job import Job
from expunge.repair.prepare import Prepared, prepare
from expunge.repair.price import Price, price
from expunge.training.recipe import Recipe


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty noisy pictures of three classes, an untrained network, and a list of the rows 0 to 2."""
    root = tmp_path_factory.mktemp("priced")
    draw = np.random.default_rng(0)
    images = draw.integers(0, 255, (60, 8, 8), dtype=np.uint8)
    np.savez(
        root / "data.npz", images=images, labels=np.arange(60) % 3, classes=np.array(["ant", "bee", "cat"])
    )
    torch.manual_seed(0)
    torch.save(MLP(1, 8, 3, 16, "relu").state_dict(), root / "net.pt")
    (root / "bad.txt").write_text("0\n1\n2\n")
    return root


def prepared_for(files: Path, **more: Any) -> Prepared:
    arch, recipe = "expunge:mlp?hidden=16&activation=relu", Recipe(epochs=50, batch_size=10)
    given: dict[str, Any] = {
        "checkpoint": files / "net.pt", "arch": arch, "data": str(files / "data.npz"),
        "forget": str(files / "bad.txt"), "force": True, "recipe": recipe, "device": "cpu",
    }  # fmt: skip
    return prepare(Job(**(given | more)))


def test_the_price_is_that_of_the_timed_steps(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A gradient takes 2 s.
    monkeypatch.setattr(room, "seconds_of_a_gradient", lambda *given: 2.0)
    prepared = prepared_for(files, method="relearn", settings={"least_steps": 0, "epochs": 4})
    found = price(prepared)
    assert found.epoch == 57 * 2.0
    assert found.retraining == 50 * 57 * 2.0
    assert found.unlearning == pytest.approx(4.4 * 60 * 2.0)
    assert found.share == pytest.approx(4.4 * 60 / (50 * 57))
    assert (found.dearer, found.may_repeat) == (False, True)
    assert price(prepared_for(files, method="retrain")).unlearning == pytest.approx(50 * 57 * 2.0)
    unknown = price(prepared_for(files, method="npo", recipe=None))
    assert (unknown.retraining, unknown.share, unknown.dearer) == (None, None, False)


def test_timing_changes_nothing(files: Path) -> None:
    prepared = prepared_for(files, method="relearn")
    before = copy.deepcopy(prepared.model.state_dict())
    found = price(prepared)
    assert found.unlearning > 0 < found.measuring
    assert all(torch.equal(value, before[name]) for name, value in prepared.model.state_dict().items())


def test_the_price_in_words() -> None:
    said = str(Price(unlearning=72.0, measuring=8.0, epoch=15.0, retraining=360.0))
    assert (
        said == "about 72 s, and 8 s to measure it; 0.2 of a retraining, which takes 360 s (--method retrain)"
    )
    twice = str(Price(72.0, 8.0, 15.0, 360.0, may_repeat=True))
    assert twice.startswith("about 72 s (144 s if it has to be done twice), and 8 s to measure it")
    assert "more than a retraining" in str(Price(unlearning=72.0, measuring=8.0, epoch=15.0, retraining=60.0))
    assert "an epoch of training takes 15 s" in str(Price(72.0, 8.0, 15.0, None))


@pytest.fixture(scope="module")
def outcome(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Prepared, Cleaned]:
    prepared = prepared_for(files, method="npo", settings={"passes": 1, "lr": 0.0001})
    return prepared, clean(prepared, tmp_path_factory.mktemp("out"), lambda share, doing: None)


def measured(cleaned: Cleaned, **more: Any) -> Cleaned:
    """The outcome with other numbers: 3 of 3 listed before and 0 now, 81 % and 79 % of the retained rows."""
    before = replace(
        cleaned.before,
        forget_as_stored=Share(3, 3),
        retained=Share(81, 100),
        healed_known=None,
        validation=None,
    )
    after = replace(before, forget_as_stored=Share(0, 3), retained=Share(79, 100), **more.pop("after", {}))
    return replace(cleaned, before=before, after=after, found=more.pop("found", None), **more)


def test_the_sentence_names_what_was_found(outcome: tuple[Prepared, Cleaned]) -> None:
    prepared, cleaned = outcome
    rows = torch.tensor([3, 6, 9, 12, 15])  # all of class ant
    found = Found(rows, torch.ones(60, dtype=torch.float64), 0.01)
    said = one_sentence(prepared, measured(cleaned, found=found))
    assert said.startswith(
        "5 more rows of class ant resemble those you listed and were unlearned too; the 3 listed rows are given their "
        "bad label in 100.0% before and 0.0% now; accuracy on the rows that stay went from 81.0% to 79.0%. "
    )
    mixed = Found(torch.tensor([3, 4, 5]), torch.ones(60, dtype=torch.float64), 0.3)
    said = one_sentence(prepared, measured(cleaned, found=mixed))
    assert said.startswith(
        "3 more rows resemble those you listed and were unlearned too (about 30% of them may be good)"
    )
    assert one_sentence(prepared, measured(cleaned)).startswith("The 3 listed rows are given")


@pytest.mark.parametrize(
    ("outcomes", "closing"),
    [
        (("forgot",), "Good to deploy."),
        (("partly forgot",), "Better than it was, but not in all: partly forgot."),
        (("did not forget",), "Do not deploy it."),
        (("undecided",), "Whether that is enough cannot be told from what was given."),
        (("little to repair",), "Use the model as it is."),
    ],
)
def test_the_sentence_ends_with_what_to_do(
    outcome: tuple[Prepared, Cleaned], outcomes: tuple[Any, ...], closing: str
) -> None:
    prepared, cleaned = outcome
    verdict = replace(cleaned.audit.verdict, outcomes=outcomes)
    assert one_sentence(
        prepared, measured(replace(cleaned, audit=replace(cleaned.audit, verdict=verdict)))
    ).endswith(closing)


def test_a_fall_is_explained_only_where_it_is_healing(outcome: tuple[Prepared, Cleaned]) -> None:
    prepared, cleaned = outcome
    verdict = replace(cleaned.audit.verdict, outcomes=("forgot",))
    cleaned = replace(
        cleaned, audit=replace(cleaned.audit, verdict=verdict), disagreeing=torch.tensor([3, 6, 9, 10])
    )
    bad = Found(torch.tensor([3, 6, 9]), torch.ones(60, dtype=torch.float64), 0.0)
    assert fall_explained(prepared, replace(cleaned, found=bad)).startswith("3 of the 4 rows that stay")
    assert fall_explained(prepared, replace(cleaned, found=None)) == ""
    truth = prepared.data.examples.labels.clone()
    truth[[3, 6]] = 1
    assert fall_explained(
        replace(prepared, on=replace(prepared.on, true_labels=truth)), replace(cleaned, found=None)
    ).startswith("2 of the 4")


def test_pictures_are_the_pixels(files: Path) -> None:
    data = load_training_data(str(files / "data.npz"))
    assert isinstance(data.examples.source, ImageSource)
    uris = thumbnails(data.examples, torch.tensor([7, 2]))
    for uri, row in zip(uris, (7, 2), strict=True):
        kind, _, content = uri.partition(",")
        assert kind == "data:image/png;base64"
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        assert np.array_equal(pixels, data.examples.source.images[row, 0].numpy())


def test_no_pictures_of_tables_and_tokens() -> None:
    labels = torch.zeros(4, dtype=torch.int64)
    assert thumbnails(in_memory(torch.rand(4, 9), labels, 2), torch.tensor([0])) == []
    assert thumbnails(in_memory(torch.zeros(4, 9, dtype=torch.int64), labels, 2), torch.tensor([0])) == []
    assert thumbnails(in_memory(torch.rand(4, 4, 8, 8), labels, 2), torch.tensor([0])) == []
    assert len(thumbnails(in_memory(torch.rand(4, 3, 8, 8), labels, 2), torch.tensor([0, 1]))) == 2
