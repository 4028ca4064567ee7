from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.api import unlearn
from expunge.data.examples import Examples
from expunge.data.images import ImageData, ImageSource
from expunge.data.synthetic import learnable_images
from expunge.inputs.checkpoint import Checkpoint
from expunge.inputs.layer_checks import Remark
from expunge.inputs.preflight import Preflight, preflight
from expunge.inputs.training_data import TrainingData
from expunge.inputs.training_scores import chance
from expunge.training.loop import accuracy, predict
from expunge.training.numerics import Numerics

CPU = Numerics("cpu")
FORGET = torch.tensor([3, 8, 20])


@cache
def images() -> ImageData:
    return learnable_images()


def training(**given: Any) -> TrainingData:
    data = images()
    source = ImageSource(data.train_images, data.mean, data.std)
    examples = Examples.all_of(source, data.train_labels, 4)
    return replace(TrainingData(examples, ("a", "b", "c", "d")), **given)


@cache
def trained() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    batch = next(training().examples.batches(1000))
    for _ in range(80):
        loss = nn.functional.cross_entropy(model(batch.x), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.zero_grad()
    return model


def check(model: nn.Module | None = None, data: TrainingData | None = None, **given: Any) -> Preflight:
    given = {"positions": FORGET, **given}
    return preflight(model or trained(), data or training(), numerics=CPU, **given)


def only(found: Preflight) -> Remark:
    assert len(found.findings) == 1, found.findings
    return found.findings[0]


def test_a_trained_model_on_its_data() -> None:
    before = {name: tensor.clone() for name, tensor in trained().state_dict().items()}
    found = check()
    assert found.findings == ()
    assert found.errors == []
    data = training()
    assert found.numbers == {
        "n_train": 256,
        "n_forget": 3,
        "n_classes": 4,
        "n_logits": 4,
        "n_scored": 256,
        "chance": chance(data.examples.labels, 4),
        "train_accuracy": accuracy(trained(), data.examples, CPU),
        "forget_accuracy": accuracy(trained(), data.examples.select(FORGET), CPU),
        "retain_accuracy": pytest.approx(
            accuracy(trained(), data.examples.select(~torch.isin(torch.arange(256), FORGET)), CPU)
        ),
        "best_order_accuracy": accuracy(trained(), data.examples, CPU),
    }
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained().state_dict().items())


def test_scores_over_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.inputs.preflight._SCORED", 50)
    found = check()
    assert found.numbers["n_scored"] == 50
    assert found.numbers["train_accuracy"] > 0.9
    assert check().numbers == found.numbers


def test_a_class_order_that_differs() -> None:
    order = torch.tensor([1, 2, 0, 3])  # the data's label i is the model's order[i]
    data = training()
    back = torch.argsort(order)
    shuffled = replace(
        data, examples=data.examples.relabel(back[data.examples.labels]), classes=tuple("cabd")
    )
    found = check(data=shuffled)
    finding = only(found)
    assert (finding.level, finding.where) == ("error", "classes")
    assert "c is read as a, a is read as b, b is read as c" in finding.what
    # the model's logit order[i] is the data's class i
    names = {int(order[i]): shuffled.classes[i] for i in range(4)}
    assert finding.remedy.endswith(f"--classes {','.join(names[i] for i in range(4))}")
    assert found.numbers["best_order_accuracy"] > 0.9
    # A reading of the images that fits this order by chance is not taken for the right one.
    assert only(check(data=shuffled, fit_reading=True)).where == "classes"
    numbered = check(data=replace(shuffled, named_classes=False))
    assert "renumber the labels" in only(numbered).remedy


def test_another_normalisation_is_proposed() -> None:
    class Shifted(nn.Module):
        """Was trained on pixels in [-1, 1]."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = trained()

        def forward(self, x: Tensor) -> Tensor:
            mean, std = images().mean[0], images().std[0]
            logits: Tensor = self.inner((0.5 * x + 0.5 - mean) / std)
            return logits + 4 * (x.abs().amax((1, 2, 3)) > 1.01)[:, None] * torch.tensor([9.0, 0, 0, 0])

    finding = only(check(Shifted()))
    assert (finding.level, finding.where) == ("error", "normalisation")
    assert finding.remedy == "read the images as in training: --normalise half"
    assert only(check(Shifted(), force=True)).level == "warning"
    fitted = check(Shifted(), fit_reading=True)
    assert (only(fitted).level, fitted.data.mean) == ("note", (0.5,))
    assert only(fitted).what.endswith("with --normalise half: the images are read so")
    assert fitted.numbers["train_accuracy"] > 0.95
    assert accuracy(Shifted(), fitted.data.examples, CPU) == fitted.numbers["train_accuracy"]
    assert check(fit_reading=True).data.mean == training().mean


def test_another_normalisation_and_class_order_at_once() -> None:
    class Shifted(nn.Module):
        """Was trained on pixels in [-1, 1], and answers by nothing but the last class to others."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = trained()

        def forward(self, x: Tensor) -> Tensor:
            mean, std = images().mean[0], images().std[0]
            logits: Tensor = self.inner((0.5 * x + 0.5 - mean) / std).roll(1, 1)
            return logits + 99 * (x.abs().amax((1, 2, 3)) > 1.01)[:, None] * torch.tensor([0, 0, 0, 1.0])

    found = check(Shifted(), fit_reading=True)
    assert found.data.mean == (0.5,)
    assert [(finding.level, finding.where) for finding in found.findings] == [
        ("error", "classes"),
        ("note", "normalisation"),
    ]


def test_a_model_at_chance() -> None:
    torch.manual_seed(1)
    draw = torch.randn(64, 4)

    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(x.flatten(1)) * 0 + torch.sin(1e4 * x.flatten(1) @ draw)

    finding = only(check(Noise()))
    assert (finding.level, finding.where) == ("error", "model")
    assert "would be chance" in finding.what
    assert "--normalise" in finding.remedy
    assert check(Noise(), force=True).errors == []


def test_a_low_score_is_a_warning() -> None:
    data = training()
    wrong = data.examples.labels.clone()
    draw = torch.Generator().manual_seed(0)
    rows = torch.randperm(256, generator=draw)[:150]
    wrong[rows] = torch.randint(0, 4, (150,), generator=draw)
    found = check(data=replace(data, examples=data.examples.relabel(wrong)), positions=torch.tensor([0, 1]))
    assert found.findings[0].level == "warning"
    assert "only" in found.findings[0].what


def test_a_forget_list_the_model_has_not_learned() -> None:
    data = training()
    labels = data.examples.labels.clone()
    labels[FORGET] = (labels[FORGET] + 1) % 4
    found = check(data=replace(data, examples=data.examples.relabel(labels)))
    finding = only(found)
    assert (finding.level, finding.where) == ("warning", "forget list")
    assert "only 0.0% of the 3 listed" in finding.what


def test_forget_lists_that_look_wrong() -> None:
    found = check(positions=torch.arange(200))
    assert "names 78% of the data" in found.findings[0].what
    found = check(positions=(training().examples.labels == 2).nonzero().flatten())
    assert only(found).what.startswith("holds every example of c")


class Returns(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.head, self.make = nn.Linear(64, 4), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.head(x.flatten(1)))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda logits: (logits, logits), "returns a tuple of 2 for 3 inputs, expected logits"),
        (lambda logits: logits.mean(), r"returns \(\) for 3 inputs"),
        (lambda logits: logits[:, :3], r"has 3 logits, but the data has 4 classes \(a, b, c, d\)"),
        (
            lambda logits: logits.reshape(7, -1),
            r"cannot read inputs of shape \(1, 8, 8\), float32: RuntimeError",
        ),
        (lambda logits: logits * torch.nan, "gives NaN on 256 of 256 examples"),
    ],
)
def test_models_that_return_no_logits(make: Any, said: str) -> None:
    import re

    found = check(Returns(make))
    assert found.errors
    assert re.search(said, found.errors[0].what)
    assert found.errors[0].remedy
    assert "train_accuracy" not in found.numbers


class TwoHeads(nn.Module):
    """Answers with a second head in training, and reads no batch of three then where it is told so."""

    def __init__(self, kind: str = "tuple") -> None:
        super().__init__()
        self.head, self.other, self.kind = nn.Linear(64, 4), nn.Linear(64, 5), kind

    def forward(self, x: Tensor) -> Any:
        first, second = self.head(x.flatten(1)), self.other(x.flatten(1))
        if not self.training:
            return first
        if self.kind == "fails" and len(x) == 3:
            raise ValueError("no threes")
        both = {
            "tuple": (first, second),
            "dictionary": {"logits": first, "other": second},
            "swapped": (second, first),
        }
        return both.get(self.kind, first)


@pytest.mark.parametrize(("kind", "said"), [("tuple", "a tuple of 2"), ("dictionary", "a dict of 2")])
def test_a_second_head_in_training(kind: str, said: str) -> None:
    model = TwoHeads(kind)
    model.head.load_state_dict(trained()[1].state_dict())
    found = only(check(model))
    assert (found.level, found.what) == ("note", f"returns {said} in training mode: the first is trained on")
    result = unlearn(model, training().examples, forget=[1, 2], method="finetune", epochs=1)
    assert not torch.equal(result.model.head.weight, model.head.weight)
    assert torch.equal(result.model.other.weight, model.other.weight)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("swapped", r"returns a tuple of 2 for 2 inputs in training mode, but 4 logits in evaluation mode"),
        (
            "fails",
            r"cannot read inputs of shape \(1, 8, 8\), float32 in training mode: ValueError: no threes",
        ),
    ],
)
def test_what_differs_in_training_mode_is_found_before_the_work(kind: str, said: str) -> None:
    (found,) = check(TwoHeads(kind)).errors
    assert re.search(said, found.what)


def test_a_model_that_is_random_in_evaluation_mode() -> None:
    found = check(Returns(lambda logits: logits + torch.randn_like(logits)))
    assert any("gives other logits when the same batch" in finding.what for finding in found.findings)


def test_layers_are_checked_and_lazy_ones_not_run() -> None:
    frozen = nn.Sequential(nn.Flatten(), nn.Linear(64, 4).requires_grad_(False))
    assert "all of 2 parameters are frozen" in check(frozen).errors[0].what
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(4))
    assert "have no shape yet" in only(check(lazy)).what
    assert isinstance(lazy[1], nn.LazyLinear)


def test_more_logits_than_numbered_labels() -> None:
    wide = nn.Sequential(trained(), nn.ConstantPad1d((0, 3), -100.0))
    data = training(named_classes=False, classes=tuple("0123"))
    found = check(wide, data)
    assert (found.data.examples.n_classes, len(found.data.classes), found.numbers["n_classes"]) == (7, 7, 7)
    assert found.errors == []
    assert [finding.what for finding in found.findings if finding.where == "data"] == [
        "has no example of 4, 5, 6"
    ]
    assert data.examples.n_classes == 4
    assert predict(wide, found.data.examples, CPU).shape == (256, 7)


def test_other_entries_of_the_checkpoint() -> None:
    content = {"model": {"w": torch.ones(1)}, "optimizer": {"m": torch.ones(1)}, "epoch": 1}
    checkpoint = Checkpoint(Path("a/net.pt"), "torch", content["model"], entry=("model",), content=content)  # type: ignore[arg-type]
    finding = only(check(checkpoint=checkpoint))
    assert (finding.level, finding.where) == ("warning", "net.pt")
    assert "tensors under optimizer" in finding.what
