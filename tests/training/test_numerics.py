from __future__ import annotations

import pytest
import torch
from torch import nn

from expunge.errors import InvalidInput
from expunge.training import numerics
from expunge.training.numerics import Numerics


@pytest.mark.parametrize("size", [8, 16, 32, 224])
def test_emulated_bfloat16_is_never_chosen(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(numerics, "_multiplies_bfloat16", lambda kind: False)
    assert Numerics.choose("cpu", size).dtype == "float32"


@pytest.mark.parametrize(
    ("size", "dtype"), [(8, "float32"), (15, "float32"), (16, "bfloat16"), (32, "bfloat16")]
)
def test_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, size: int, dtype: str) -> None:
    monkeypatch.setattr(numerics, "_multiplies_bfloat16", lambda kind: True)
    assert Numerics.choose("cpu", size).dtype == dtype


def test_accelerator_is_chosen_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked: list[str] = []
    monkeypatch.setattr(numerics, "_multiplies_bfloat16", lambda kind: asked.append(kind) or True)
    assert Numerics.choose(image_size=8) == Numerics("cuda", "float32", channels_last=False)
    assert Numerics.choose(image_size=8, dtype="bfloat16").dtype == "bfloat16"
    assert Numerics.choose("cuda:1") == Numerics("cuda:1", "bfloat16", channels_last=True)
    assert Numerics.choose("cuda", dtype="float32").dtype == "float32"
    assert asked == ["cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Numerics.choose().device == "cpu"


def test_processor_without_the_queries_counts_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not numerics._multiplies_bfloat16("cpu")


def test_other_accelerators_are_not_judged_by_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert numerics._multiplies_bfloat16("cpu")
    assert not numerics._multiplies_bfloat16("mps")


@pytest.mark.parametrize(("size", "last"), [(8, False), (9, True), (32, True)])
def test_memory_format_follows_the_image_size(size: int, last: bool) -> None:
    assert Numerics.choose("cpu", size).channels_last is last


def test_unknown_device() -> None:
    with pytest.raises(InvalidInput, match="device 'abacus' is not one torch knows"):
        Numerics.choose("abacus")
    with pytest.raises(InvalidInput, match="device 'abacus' is not one torch knows"):
        Numerics("abacus")


def test_cuda_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda:0"):
        with pytest.raises(InvalidInput, match=r"torch sees no CUDA device; use device='cpu'"):
            Numerics.choose(name)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has that accelerator")
def test_other_accelerator_that_is_not_there() -> None:
    with pytest.raises(InvalidInput, match="mps"):
        Numerics.choose("mps")


def test_unknown_dtype() -> None:
    with pytest.raises(InvalidInput, match="dtype must be 'float32' or 'bfloat16', got 'float16'"):
        Numerics(dtype="float16")


def test_placing() -> None:
    net, x = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    assert Numerics(channels_last=False).place_inputs(x).is_contiguous()
    last = Numerics(channels_last=True)
    assert last.place(net) is net
    assert net.weight.is_contiguous(memory_format=torch.channels_last)
    assert last.place_inputs(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.place_inputs(x), x)
    assert torch.equal(last.place_inputs(x[0]), x[0])


def test_only_images_have_a_memory_format() -> None:
    net = nn.Sequential(nn.Conv3d(1, 2, 2), nn.Conv2d(3, 4, 3), nn.BatchNorm3d(2), nn.Linear(3, 2))
    weights = [parameter.clone() for parameter in net.parameters()]
    Numerics(channels_last=True).place(net)
    assert net[1].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[0].weight.is_contiguous()
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))


def test_autocast() -> None:
    layer, x = nn.Linear(4, 4), torch.randn(2, 4)
    with Numerics(dtype="bfloat16").autocast():
        assert layer(x).dtype == torch.bfloat16
    with Numerics().autocast():
        assert layer(x).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_tokens_and_tables_are_no_large_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "_multiplies_bfloat16", lambda kind: True)
    assert Numerics.for_inputs("cpu", (512,), "bfloat16").dtype == "bfloat16"
    assert Numerics.for_inputs("cpu", (3, 32, 32)) == Numerics.choose("cpu", 32)
    for shape in ((64,), (512,), ()):
        assert Numerics.for_inputs("cpu", shape) == Numerics(channels_last=False)
