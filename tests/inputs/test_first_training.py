from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.data.examples import Examples
from expunge.data.images import ImageSource
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput, StoreError
from expunge.inputs.first_training import FirstTraining, first_training, trained_on
from expunge.registry import METHODS
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

RECIPE = Recipe(epochs=7, batch_size=16, optimiser=Optimiser(name="adam", lr=0.004))


class Net(nn.Module):
    """An encoder of two layers and a head for four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 4))
        self.head = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def said_of(tmp_path: Path, **given: Any) -> FirstTraining:
    return first_training(Net(), **{"checkpoint": tmp_path / "net.pt", "arch": "net.py:Net", **given})


def trainer(folder: Path, **changed: Any) -> None:
    state = {
        "num_train_epochs": 3, "train_batch_size": 16,
        "log_history": [{"learning_rate": 2e-5, "loss": 1.0}, {"learning_rate": 5e-5}, {"eval_loss": 0.3}],
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps(state | changed))


def test_nobody_says(tmp_path: Path) -> None:
    assert said_of(tmp_path) == FirstTraining(None, "", False)


def test_a_trainer_left_its_state_beside_the_checkpoint(tmp_path: Path) -> None:
    trainer(tmp_path)
    found = said_of(tmp_path)
    assert found.recipe is not None
    assert found.recipe.optimiser == Optimiser(name="adamw", lr=5e-5, weight_decay=0.0)
    assert (found.recipe.epochs, found.recipe.batch_size, found.recipe.augment) == (3, 16, False)
    assert found.source == f"from {tmp_path / 'trainer_state.json'}"
    assert found.scratch is False  # it began from pretrained weights


def test_the_folder_of_the_architecture_comes_first_and_the_user_before_it(tmp_path: Path) -> None:
    trainer(tmp_path)
    trainer(tmp_path / "bert", log_history=[{"learning_rate": 1e-4}], train_batch_size=None)
    found = said_of(tmp_path, arch=f"transformers:{tmp_path}/bert").recipe
    assert found is not None
    assert (found.optimiser.lr, found.batch_size) == (1e-4, 8)
    said = said_of(tmp_path, recipe=RECIPE)
    assert (said.recipe, said.source, said.scratch) == (RECIPE, "from --recipe", False)  # a trainer was here


def test_whether_it_can_be_retrained_from_scratch(tmp_path: Path) -> None:
    assert said_of(tmp_path, recipe=RECIPE).scratch is True
    assert said_of(tmp_path, arch="timm:resnet18", recipe=RECIPE).scratch is False


def test_the_pickle_beside_it_is_not_read(tmp_path: Path) -> None:
    trainer(tmp_path)
    ran = tmp_path / "ran"
    # Unpickled, it would make the file.
    (tmp_path / "training_args.bin").write_bytes(f"cos\nsystem\n(S'touch {ran}'\ntR.".encode())
    assert said_of(tmp_path).source.endswith("training_args.bin is a pickle and was not read")
    assert not ran.exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"log_history": []}, "has no learning rate"),
        ({"log_history": [{"learning_rate": 0.0}]}, "has no learning rate"),
        ({"log_history": [{"learning_rate": "fast"}]}, "cannot be used"),
        ({"num_train_epochs": None}, "cannot be used"),
        ({"train_batch_size": -1}, "cannot be used"),
        ({"log_history": [{"learning_rate": 1e999}]}, "cannot be used"),
    ],
)
def test_a_state_that_says_too_little(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    trainer(tmp_path, **changed)
    found = said_of(tmp_path)
    assert found.recipe is None
    assert said in found.source
    assert "--recipe" in found.source


def test_a_state_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "trainer_state.json").write_text("[")
    assert "cannot be used" in said_of(tmp_path).source


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    path.parent.mkdir(exist_ok=True)
    torch.save(state, path)
    return path


def test_pretrained_weights_with_another_head(tmp_path: Path) -> None:
    state = {name: torch.full_like(tensor, 2.0) for name, tensor in Net().state_dict().items()}
    state |= {"head.weight": torch.zeros(9, 4), "head.bias": torch.zeros(9)}
    base = saved(tmp_path / "base.pt", state)
    found = said_of(tmp_path, base=base, recipe=RECIPE)
    assert found.start is not None
    assert sorted(found.start) == ["body.1.bias", "body.1.weight", "body.2.bias", "body.2.weight"]
    assert bool((found.start["body.1.weight"] == 2).all())
    assert found.scratch is False  # a retraining from a fresh initialisation would be another


def test_an_encoder_alone_and_a_folder(tmp_path: Path) -> None:
    state = Net().body.state_dict()
    saved(tmp_path / "checkpoint-500" / "pytorch_model.bin", state)
    found = said_of(tmp_path, earlier=tmp_path / "checkpoint-500")
    assert found.start is not None
    assert sorted(found.start) == sorted(f"body.{name}" for name in state)
    assert found.start_file == tmp_path / "checkpoint-500" / "pytorch_model.bin"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"body.1.weight": torch.zeros(5, 63)},
            r"other.pt: .*'body.1.weight' of shape \(5, 63\) and the model has",
        ),
        ({"stem.weight": torch.zeros(2)}, r"other.pt: none of the 1 names .*'stem.weight'"),
    ],
)
def test_weights_of_another_network(tmp_path: Path, state: dict[str, Tensor], message: str) -> None:
    path = saved(tmp_path / "other.pt", state)
    with pytest.raises(InvalidInput, match=message):
        said_of(tmp_path, base=path)


def test_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_bytes(b"")
    with pytest.raises(StoreError, match=r"notes.txt cannot be read: .* no torch checkpoint"):
        said_of(tmp_path, earlier=tmp_path / "notes.txt")
    with pytest.raises(StoreError, match="expected a checkpoint file; it holds none"):
        said_of(tmp_path, base=tmp_path)


def words(method: str, first: FirstTraining, **settings: Any) -> tuple[str, dict[str, Any], Meter]:
    meter = Meter()
    data = learnable_images()
    source = ImageSource(data.train_images, data.mean, data.std)
    split = Split(Examples.all_of(source, data.train_labels, 4), torch.tensor([1, 2]))
    made = METHODS.get(method)(**settings)
    text, found = trained_on(made, Net(), split, Numerics("cpu"), first, seed=0, meter=meter, given=settings)
    return text, found, meter


def test_what_it_is_trained_on_with() -> None:
    known, unknown = FirstTraining(RECIPE, "from --recipe", True), FirstTraining(None, "", False)
    text, found, meter = words("relearn", known)
    assert text == "adam, learning rate 0.004, batches of up to 16: as in the first training, from --recipe"
    assert (found, meter.sample_gradients) == ({}, 0)
    text, found, meter = words("relearn", unknown)
    assert text.startswith(
        f"adamw, learning rate {found['lr']:g}, batches of up to 64: by the kind of the network"
    )
    assert found["optimiser"] == "adamw"
    assert meter.sample_gradients >= 12 * 64
    assert words("relearn", unknown, lr=0.01)[:2] == (
        "adamw, learning rate 0.01, batches of up to 64: as was asked for", {},
    )  # fmt: skip
    text, found, _ = words("npo", unknown)
    assert text == "sgd, learning rate 0.005, batches of up to 512: its own settings"
    text, _, _ = words("npo", known, optimiser="adam", lr=0.004)
    assert text.endswith("its own settings")  # the user's, though they are the same
    assert words("logit_mask", known)[:2] == ("", {})
