from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from expunge.errors import InvalidInput
from expunge.inputs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from expunge.inputs.checkpoint_weights import load_weights, state_to_write

Net = Callable[..., nn.Module]


def checkpoint(state: Mapping[str, Tensor]) -> Checkpoint:
    return Checkpoint(Path("net.pt"), "torch", state)


def changed(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in model.state_dict().items()}


def test_every_tensor_is_loaded(net: Net) -> None:
    model = net()
    state = changed(model)
    load_weights(model, checkpoint(state))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert list(state_to_write(model, checkpoint(state))) == list(state)


@pytest.mark.parametrize(
    "prefix", ["model.", "model.net.", "module.", "_orig_mod.module.", "module._orig_mod."]
)
def test_a_shared_prefix_is_taken_off_and_put_back(tmp_path: Path, net: Net, prefix: str) -> None:
    state = {prefix + name: tensor for name, tensor in changed(net()).items()}
    torch.save({"state_dict": state}, tmp_path / "lightning.ckpt")
    model = net()
    found = load_weights(model, read_checkpoint(tmp_path / "lightning.ckpt"))
    assert found.names["0.weight"] == prefix + "0.weight"
    write_checkpoint(found, state_to_write(model, found), tmp_path / "out.ckpt")
    back = torch.load(tmp_path / "out.ckpt", weights_only=True)["state_dict"]
    assert list(back) == list(state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_the_average_of_a_model(tmp_path: Path, net: Net) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(net())
    torch.save(averaged.state_dict(), tmp_path / "net.pt")
    model = net()
    found = load_weights(model, read_checkpoint(tmp_path / "net.pt"))
    assert found.extra == ("n_averaged",)
    assert found.carried == []
    new = {name: tensor + 1 for name, tensor in state_to_write(model, found).items()}
    write_checkpoint(found, new, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(back) == list(averaged.state_dict())
    assert torch.equal(back["module.0.weight"], new["0.weight"])


def test_two_sets_that_fit(net: Net) -> None:
    both = {
        f"{front}.{name}": tensor
        for front in ("student", "teacher")
        for name, tensor in net().state_dict().items()
    }
    with pytest.raises(
        InvalidInput, match=r"2 sets of weights that fit the architecture, under student\., teacher\."
    ):
        load_weights(net(), checkpoint(both))
    more = checkpoint({**both, "student.3.scale": torch.ones(2)})
    del more.state["teacher.0.bias"]  # type: ignore[attr-defined]
    with pytest.raises(InvalidInput, match=r"1 in the file are not in the model: 3\.scale"):
        load_weights(net(), more)


def test_missing_and_unknown_names(net: Net) -> None:
    state = changed(net())
    state["3.wieght"] = state.pop("3.weight")
    with pytest.raises(
        InvalidInput,
        match=r"1 tensors of the model are not in the file: 3\.weight; did you mean '3\.wieght'\?; 1 in the file",
    ):
        load_weights(net(), checkpoint(state))
    with pytest.raises(InvalidInput, match=r"not in the file: 0\.weight, 0\.bias, 1\.weight and 5 more"):
        load_weights(net(), checkpoint({"3.weight": torch.ones(3, 8), "3.running": torch.ones(3)}))


def test_other_prefixes_are_named(net: Net) -> None:
    state = {f"layers.{name}": tensor for name, tensor in changed(net()).items()}
    state["head.1.weight"] = torch.ones(1)
    del state["layers.1.weight"]
    with pytest.raises(InvalidInput, match="the same layers bear other prefixes"):
        load_weights(net(), checkpoint(state))


def test_class_counts(net: Net) -> None:
    with pytest.raises(
        InvalidInput, match=r"has 3 classes, but the architecture has 5 \(3\.weight, 3\.bias\)"
    ):
        load_weights(net(5), checkpoint(net(3).state_dict()))


def test_other_shapes_leave_the_model_alone(net: Net) -> None:
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = changed(model)
    state["0.weight"], state["3.weight"] = torch.ones(8, 5), torch.ones(3, 9)
    said = r"2 shapes differ: 0\.weight is \(8, 5\) in the file and \(8, 4\) in the model"
    with pytest.raises(InvalidInput, match=said):
        load_weights(model, checkpoint(state))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.register_buffer("ids", torch.arange(3), persistent=False)


def test_tied_parameters_and_buffers_that_are_not_saved() -> None:
    state = {name: tensor.clone() for name, tensor in Tied().state_dict().items() if name != "two.weight"}
    model = Tied()
    found = load_weights(model, checkpoint({**state, "ids": torch.tensor([4, 5, 6])}))
    assert torch.equal(model.two.weight, state["one.weight"])
    assert model.ids.tolist() == [0, 1, 2]
    assert set(state_to_write(model, found)) == set(state)
    with pytest.raises(InvalidInput, match="ids"):
        load_weights(Tied(), checkpoint({**state, "ids": torch.arange(4)}))


def test_half_precision_is_loaded_in_the_models_own(net: Net) -> None:
    model = net()
    load_weights(
        model,
        checkpoint({n: t.half() if t.is_floating_point() else t for n, t in model.state_dict().items()}),
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
