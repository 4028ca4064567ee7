from __future__ import annotations

import io
import os
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from expunge.errors import InvalidInput, StoreError
from expunge.inputs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

Net = Callable[..., nn.Module]


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def equal(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(
        torch.equal(one[n], other[n]) and one[n].dtype == other[n].dtype for n in one
    )


def test_a_state_dict_comes_back_as_it_was(tmp_path: Path, net: Net) -> None:
    state = net().state_dict()
    checkpoint = read_checkpoint(written(tmp_path / "net.pt", state))
    assert (checkpoint.container, checkpoint.entry, checkpoint.carried) == ("torch", (), [])
    write_checkpoint(checkpoint, checkpoint.state, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    assert isinstance(back, OrderedDict)
    assert equal(back, state)
    assert back._metadata == state._metadata


@pytest.mark.parametrize("entry", ["state_dict", "model", "model_state_dict"])
def test_a_state_dict_inside_a_dictionary(tmp_path: Path, net: Net, entry: str) -> None:
    moments = {"step": torch.ones(2)}
    path = written(tmp_path / "net.pth", {"epoch": 3, entry: net().state_dict(), "optimizer": [moments]})
    checkpoint = read_checkpoint(path)
    assert (checkpoint.entry, checkpoint.carried) == ((entry,), ["optimizer"])
    new = {name: tensor + 1 for name, tensor in checkpoint.state.items()}
    write_checkpoint(checkpoint, new, tmp_path / "out.pth")
    back = torch.load(tmp_path / "out.pth", weights_only=True)
    assert list(back) == ["epoch", entry, "optimizer"]
    assert back["epoch"] == 3
    assert torch.equal(back["optimizer"][0]["step"], torch.ones(2))
    assert equal(back[entry], new)
    assert equal(torch.load(path, weights_only=True)[entry], net().state_dict())


def test_a_state_dict_under_any_key_however_deep(tmp_path: Path, net: Net) -> None:
    optimiser = {"state": {"0.weight": {"exp_avg": torch.ones(2)}}, "param_groups": []}
    content = {
        "run": {"net": net().state_dict(), "lr": 0.1},
        "optimizer": optimiser,
        "rng": {"cpu": torch.ones(2).byte()},
    }
    checkpoint = read_checkpoint(written(tmp_path / "net.pt", content))
    assert (checkpoint.entry, checkpoint.carried) == (("run", "net"), ["optimizer", "rng"])
    new = {name: tensor + 1 for name, tensor in checkpoint.state.items()}
    write_checkpoint(checkpoint, new, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    assert list(back) == list(content)
    assert back["run"]["lr"] == 0.1
    assert equal(back["run"]["net"], new)
    two = {"generator": net().state_dict(), "critic": net().state_dict()}
    with pytest.raises(
        InvalidInput, match=r"holds 2 state dicts \(generator, critic\); save the one of the model"
    ):
        read_checkpoint(written(tmp_path / "two.pt", two))


def test_a_compiled_network(tmp_path: Path, net: Net) -> None:
    state = {f"_orig_mod.{name}": tensor for name, tensor in net().state_dict().items()}
    checkpoint = read_checkpoint(written(tmp_path / "net.pt", state))
    assert checkpoint.names["0.weight"] == "_orig_mod.0.weight"
    assert list(checkpoint.state) == list(net().state_dict())
    write_checkpoint(checkpoint, checkpoint.state, tmp_path / "out.pt")
    assert equal(torch.load(tmp_path / "out.pt", weights_only=True), state)


def test_a_flipped_bit(tmp_path: Path, net: Net) -> None:
    path = written(tmp_path / "net.pt", net().state_dict())
    content = bytearray(path.read_bytes())
    at = content.find(next(net().parameters()).detach().numpy().tobytes())
    content[at + 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged: the checksum of net/data/0 is another"):
        read_checkpoint(path)


@pytest.mark.parametrize("kind", ["sparse", "meta", "complex"])
def test_tensors_that_are_no_weights(tmp_path: Path, kind: str) -> None:
    tensor = {
        "sparse": torch.eye(2).to_sparse(),
        "meta": torch.ones(2, device="meta"),
        "complex": torch.ones(2, dtype=torch.complex64),
    }[kind]
    path = written(tmp_path / "net.pt", {"a": torch.ones(2), "b": tensor})
    with pytest.raises(InvalidInput, match=r"b is a sparse, meta, quantized or complex tensor"):
        read_checkpoint(path)


def test_a_deep_nest_and_a_pipe(tmp_path: Path) -> None:
    nest: list[Any] = []
    for _ in range(300):
        nest = [nest]
    assert (
        read_checkpoint(written(tmp_path / "a.pt", {"model": {"w": torch.ones(2)}, "x": nest})).carried == []
    )
    os.mkfifo(tmp_path / "pipe.pt")
    with pytest.raises(InvalidInput, match="is a pipe, socket or device, expected a file"):
        read_checkpoint(tmp_path / "pipe.pt")


def test_safetensors_keep_names_dtypes_and_metadata(tmp_path: Path) -> None:
    state = {"a": torch.ones(2, 3, dtype=torch.float16), "n": torch.tensor(4), "b": torch.zeros(3)}
    save_file(state, tmp_path / "net.safetensors", {"format": "pt", "author": "me"})
    checkpoint = read_checkpoint(tmp_path / "net.safetensors")
    # in float32, and in another memory format, as training leaves them
    new = {"a": torch.full((3, 2), 0.25).t(), "n": torch.tensor(7), "b": torch.ones(3)}
    write_checkpoint(checkpoint, new, tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt", "author": "me"}
    back = read_checkpoint(tmp_path / "out.safetensors").state
    assert back["a"].dtype == torch.float16
    assert torch.equal(back["a"], torch.full((2, 3), 0.25, dtype=torch.float16))
    assert int(back["n"]) == 7


def test_a_safetensors_file_without_its_suffix(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "weights")
    assert read_checkpoint(tmp_path / "weights").container == "safetensors"


def test_what_the_model_no_longer_has_is_written_back(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(
        written(tmp_path / "a.pt", {"w": torch.ones(2), "position_ids": torch.arange(3)})
    )
    write_checkpoint(checkpoint, {"w": torch.zeros(2)}, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)
    assert equal(back, {"w": torch.zeros(2), "position_ids": torch.arange(3)})


def test_parameters_stay_parameters(tmp_path: Path) -> None:
    checkpoint = read_checkpoint(
        written(tmp_path / "a.pt", {"w": nn.Parameter(torch.ones(2), requires_grad=False)})
    )
    write_checkpoint(checkpoint, {"w": torch.zeros(2)}, tmp_path / "out.pt")
    back = torch.load(tmp_path / "out.pt", weights_only=True)["w"]
    assert isinstance(back, nn.Parameter)
    assert not back.requires_grad


def test_pickled_objects_are_refused(tmp_path: Path, net: Net) -> None:
    path = written(tmp_path / "whole.pt", net())
    with pytest.raises(
        StoreError, match=r"pickled objects.*\n    import torch\n.*'whole.pt'.*\n.*torch.save"
    ):
        read_checkpoint(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of torch
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(StoreError, match="pickled objects"):
        read_checkpoint(tmp_path / "script.pt")


def test_the_conversion_in_the_refusal_works(tmp_path: Path, net: Net, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (net(), {"state_dict": net().state_dict(), "args": net()}):
        with pytest.raises(StoreError) as caught:
            read_checkpoint(written(tmp_path / "whole.pt", content))
        snippet = str(caught.value).split(":\n", 1)[1]
        exec("\n".join(line.strip() for line in snippet.splitlines()), {})
        assert equal(read_checkpoint(tmp_path / "weights.pt").state, net().state_dict())


def torch_bytes(state: dict[str, Tensor], **given: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **given)
    return buffer.getvalue()


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_truncated_torch_files(tmp_path: Path, legacy: bool, share: float) -> None:
    content = torch_bytes({"w": torch.randn(500)}, _use_new_zipfile_serialization=not legacy)
    (tmp_path / "net.pt").write_bytes(content[: int(share * len(content))])
    with pytest.raises(StoreError, match=r"net\.pt cannot be read.*(truncated|empty).*copy it again"):
        read_checkpoint(tmp_path / "net.pt")


def test_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "notes.pt").write_text("hello world, this is text")
    with pytest.raises(StoreError, match=r"notes.pt cannot be read"):
        read_checkpoint(tmp_path / "notes.pt")
    save_file({"a": torch.ones(200)}, tmp_path / "net.safetensors")
    whole = (tmp_path / "net.safetensors").read_bytes()
    (tmp_path / "net.safetensors").write_bytes(whole[:-20])
    with pytest.raises(StoreError, match=r"no readable safetensors file.*truncated"):
        read_checkpoint(tmp_path / "net.safetensors")
    with pytest.raises(StoreError, match=r"nowhere.pt: no such file"):
        read_checkpoint(tmp_path / "nowhere.pt")
    with pytest.raises(StoreError, match=r"is a folder; .*it holds net.safetensors, notes.pt"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds a dictionary of nothing"),
        ({"weights": {"a": [1.0]}, "epoch": 2}, "a dictionary of 'weights', 'epoch'"),
        (torch.ones(3), "holds a Tensor"),
        ({"state_dict": {"a": 3}}, "a dictionary of 'state_dict'"),
    ],
)
def test_no_state_dict(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=f"{said}, expected a state dict"):
        read_checkpoint(written(tmp_path / "net.pt", content))


def test_an_empty_safetensors_file(tmp_path: Path) -> None:
    save_file({}, tmp_path / "net.safetensors")
    with pytest.raises(InvalidInput, match="holds no tensors"):
        read_checkpoint(tmp_path / "net.safetensors")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return read_checkpoint(written(tmp_path / "net.pt", {"w": torch.ones(2, dtype=torch.float16)}))


def test_the_input_is_never_overwritten(tmp_path: Path, checkpoint: Checkpoint, monkeypatch: Any) -> None:
    before = checkpoint.path.read_bytes()
    (tmp_path / "soft.pt").symlink_to(checkpoint.path)
    os.link(checkpoint.path, tmp_path / "hard.pt")
    monkeypatch.chdir(tmp_path)
    for out in (checkpoint.path, "net.pt", tmp_path / "soft.pt", tmp_path / "hard.pt"):
        with pytest.raises(InvalidInput, match="never overwritten"):
            write_checkpoint(checkpoint, checkpoint.state, out)
    assert checkpoint.path.read_bytes() == before


def test_a_list_that_holds_itself_is_looked_through(tmp_path: Path) -> None:
    around: list[Any] = []
    around.append(around)
    content = {"state_dict": {"w": torch.ones(2)}, "around": around, "ema": [around, torch.ones(2)]}
    assert read_checkpoint(written(tmp_path / "around.pt", content)).carried == ["ema"]


def test_bad_writes(tmp_path: Path, checkpoint: Checkpoint) -> None:
    out = tmp_path / "out.pt"
    with pytest.raises(InvalidInput, match=r"extra: not in .*net\.pt"):
        write_checkpoint(checkpoint, {"extra": torch.ones(2)}, out)
    with pytest.raises(InvalidInput, match=r"w has shape \(3,\), but \(2,\) was read"):
        write_checkpoint(checkpoint, {"w": torch.ones(3)}, out)
    with pytest.raises(InvalidInput, match=r"not finite in the stored torch\.float16"):
        write_checkpoint(checkpoint, {"w": torch.full((2,), 1e6)}, out)
    assert not out.exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_checkpoint(checkpoint, {}, tmp_path / "file" / "out.pt")
    write_checkpoint(checkpoint, {}, out)
    with pytest.raises(InvalidInput, match="is there already"):
        write_checkpoint(checkpoint, {}, out)


def test_a_stored_infinity_may_stay(tmp_path: Path) -> None:
    mask = {"mask": torch.tensor([0.0, -torch.inf])}
    checkpoint = read_checkpoint(written(tmp_path / "a.pt", mask))
    write_checkpoint(checkpoint, mask, tmp_path / "out.pt")
    assert equal(torch.load(tmp_path / "out.pt", weights_only=True), mask)
