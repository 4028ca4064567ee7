from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from expunge.errors import first_few
from expunge.inputs.layer_checks import Remark, check_layers, check_lazy, ranked

Net = Callable[..., nn.Module]


def only(found: list[Remark]) -> Remark:
    assert len(found) == 1, found
    return found[0]


def test_a_sound_model_gives_nothing(net: Net) -> None:
    assert check_layers(net(), 3, 64) == []


def test_values_that_are_not_finite(net: Net) -> None:
    model = net()
    model[1].running_var[0] = torch.inf  # type: ignore[index, union-attr, operator]
    found = only(check_layers(model, 3, 64))
    assert (found.level, found.where, found.what) == (
        "error",
        "1.running_var",
        "1 tensors hold NaN or inf: 1.running_var",
    )


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision(net: Net, kind: torch.dtype) -> None:
    found = only(check_layers(net().to(kind), 3, 64))
    assert (found.level, found.where) == ("error", "0.weight")
    assert str(kind).removeprefix("torch.") in found.what
    assert "model.float()" in found.remedy


def test_frozen_parameters(net: Net) -> None:
    model = net()
    model[0].requires_grad_(False)  # type: ignore[index, union-attr, operator]
    found = only(check_layers(model, 3, 64))
    assert (found.level, found.where) == ("warning", "0.weight")
    assert found.what.startswith("2 of 6 parameters are frozen: 0.weight, 0.bias;")
    found = only(check_layers(model.requires_grad_(False), 3, 64))
    assert found.level == "error"
    assert found.what.startswith("all of 6 parameters are frozen")


def test_no_parameters() -> None:
    assert [finding.level for finding in check_layers(nn.Flatten(), 3, 64)] == ["error", "warning"]


def test_tied_parameters() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    found = only(check_layers(model, 3, 64))
    assert (found.level, found.where) == ("note", "0.weight")
    assert "under 2 names: 0.weight, 1.weight" in found.what


def test_batch_norm(net: Net) -> None:
    assert only(check_layers(net(), 3, 8)).level == "warning"
    found = only(check_layers(net(), 3, 1))
    assert (found.level, found.remedy) == ("error", "raise the batch size to 16 or more")
    model = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))
    assert "keep no running statistics" in only(check_layers(model, 3, 64)).what
    model = nn.SyncBatchNorm.convert_sync_batchnorm(net())
    assert only(check_layers(model, 3, 64)).level == "error"
    assert only(check_layers(model, 3, 64, "cuda")).level == "note"


def test_dropout_and_heads() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0), nn.Linear(4, 3))
    found = only(check_layers(model, 3, 64))
    assert (found.level, found.where, found.what[:16]) == ("note", "0", "1 dropout layers")
    found = only(check_layers(nn.Sequential(nn.Conv2d(1, 3, 1)), 3, 64))
    assert (found.level, found.where) == ("warning", "head")
    assert "no linear layer has 3 outputs" in found.what


def test_lazy_layers(net: Net) -> None:
    assert check_lazy(net()) == []
    found = only(check_lazy(nn.Sequential(nn.LazyLinear(3))))
    assert (found.level, found.where) == ("error", "0.weight")


def test_order_and_first_names() -> None:
    levels = ("note", "error", "warning", "error")
    found = ranked([Remark(level, str(i), "") for i, level in enumerate(levels)])  # type: ignore[arg-type]
    assert [finding.where for finding in found] == ["1", "3", "2", "0"]
    assert first_few(["a", "b"]) == "a, b"
    assert first_few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
