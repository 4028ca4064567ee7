"""Frozen first blocks are computed once, where that changes nothing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge import load_method
from expunge.data.joined import in_memory
from expunge.methods.base import Request
from expunge.tasks.base import Split
from expunge.training import frozen_prefix as room
from expunge.training.frozen_prefix import frozen_prefix
from expunge.training.numerics import Numerics

HERE = Numerics("cpu", channels_last=False)
N = 40


class Counted(nn.Module):
    """A block that counts the examples it reads."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.read = inner, 0

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        self.read += len(x)
        out: Tensor = self.inner(x, *more)
        return out


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


class Net(nn.Module):
    """Two frozen blocks, then two that are trained; in one kind the second part reads the input again."""

    def __init__(self, kind: str = "plain") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.one = frozen(Counted(nn.Linear(6, 8)))
        inner: list[nn.Module] = [nn.Linear(8, 8), nn.ReLU()]
        if kind == "norm":
            inner.append(nn.BatchNorm1d(8))
        if kind == "dropout":
            inner.append(nn.Dropout(0.5))
        self.two = frozen(Counted(nn.Sequential(*inner)))
        self.three = nn.Linear(8, 8)
        self.head = nn.Linear(8 + 6 * (kind == "skip"), 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x).relu()
        z = self.two(h)
        z = self.three(z + h if self.kind == "within" else z).relu()
        out: Tensor = self.head(torch.cat((z, x), 1) if self.kind == "skip" else z)
        return out


def problem() -> Split:
    drawn = torch.Generator().manual_seed(1)
    x, y = torch.randn(2 * N, 6, generator=drawn), torch.randint(3, (2 * N,), generator=drawn)
    # Every second row of a larger source: a position is not a row.
    train = in_memory(x, y, 3).select(torch.arange(0, 2 * N, 2))
    return Split(train, torch.tensor([3, 5, 8]))


@pytest.mark.parametrize(("kind", "last", "skipped"), [("plain", "two", ("one",)), ("skip", "two", ("one",))])
def test_the_rest_gives_the_same_logits(kind: str, last: str, skipped: tuple[str, ...]) -> None:
    model, train = Net(kind).eval(), problem().train
    found = frozen_prefix(model, train, HERE)
    assert found is not None
    assert (found.last, found.skipped) == (last, skipped)
    whole = torch.cat([model(batch.x) for batch in train.batches(7)])
    before = model.one.read
    with found.given_to(model) as numbered:
        rest = torch.cat([model(batch.x) for batch in numbered.batches(7)])
        index = torch.cat([batch.index for batch in numbered.batches(7)])
    assert model.one.read == before
    torch.testing.assert_close(rest, whole, rtol=0, atol=1e-6)
    assert torch.equal(index, train.index)
    # Afterwards the network reads inputs again.
    torch.testing.assert_close(model(train.source.fetch(train.index[:2], None)), whole[:2])


def test_an_earlier_block_that_is_read_later_is_run() -> None:
    model, train = Net("within").eval(), problem().train
    found = frozen_prefix(model, train, HERE)
    assert found is not None
    assert (found.last, found.skipped) == ("two", ())
    before = (model.one.read, model.two.read)
    with found.given_to(model) as numbered:
        batch = next(numbered.batches(5))
        out = model(batch.x)
    assert (model.one.read, model.two.read) == (before[0] + 5, before[1])
    torch.testing.assert_close(out, model(train.source.fetch(batch.index, None)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["norm", "dropout"])
def test_a_block_that_training_changes_ends_the_prefix(kind: str) -> None:
    model = Net(kind)
    found = frozen_prefix(model, problem().train, HERE)
    # The linear layer and the activation before it still count.
    assert found is not None
    assert found.last == "two.inner.0"
    model.two.eval()
    assert all(module.training for module in (model, model.three))


def test_nothing_frozen_or_nothing_trained_first() -> None:
    model = Net().requires_grad_(True)
    assert frozen_prefix(model, problem().train, HERE) is None
    model.head.requires_grad_(False)  # frozen, but last
    assert frozen_prefix(model, problem().train, HERE) is None


def test_large_outputs_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    model, train = Net().eval(), problem().train
    in_memory_ = frozen_prefix(model, train, HERE)
    monkeypatch.setattr(room, "_IN_MEMORY", 100)
    on_disk = frozen_prefix(model, train, HERE)
    assert in_memory_ is not None
    assert on_disk is not None
    assert on_disk.file is not None
    assert torch.equal(in_memory_.outputs, on_disk.outputs)
    monkeypatch.setattr(room, "_ON_DISK", 100)
    assert frozen_prefix(model, train, HERE) is None


def test_state_and_modes_stay() -> None:
    model = Net()
    model.two.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    frozen_prefix(model, problem().train, HERE)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes
    assert "forward" not in vars(model)


class Tokens(nn.Module):
    """A frozen embedding and block in tuples, as language models have them, and a mask made from the ids."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = frozen(nn.Embedding(9, 4))
        self.block = frozen(nn.Linear(4, 4))
        self.late = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

        class InTuple(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: Tensor) -> tuple[Tensor]:
                return (self.inner(x),)

        self.block = frozen(InTuple(self.block))

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids > 0).float()[..., None]
        h = self.late(self.block(self.embed(ids))[0])
        out: Tensor = self.head((h * mask).sum(1))
        return out


def test_ids_are_read_beside_the_outputs_where_a_mask_needs_them() -> None:
    ids = torch.randint(0, 9, (N, 5), generator=torch.Generator().manual_seed(2))
    train = in_memory(ids, torch.zeros(N, dtype=torch.int64), 3)
    model = Tokens().eval()
    found = frozen_prefix(model, train, HERE)
    assert found is not None
    assert (found.last, found.skipped, found.in_tuple) == ("block", ("embed",), frozenset({"block"}))
    with found.given_to(model) as numbered:
        rest = model(next(numbered.batches(N)).x)
    torch.testing.assert_close(rest, model(ids), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["plain", "skip"])
def test_relearning_runs_the_frozen_blocks_once_and_ends_alike(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = problem()
    method = load_method(
        "relearn",
        lr=0.01,
        optimiser="sgd",
        batch_size=10,
        least_steps=0,
        least_learned=0.0,
        neighbours=False,
        epochs=4,
    )
    model = Net(kind)
    kept = method(model, Request(split, seed=0, numerics=HERE))
    read = kept.model.one.read
    monkeypatch.setattr("expunge.methods.relearn.frozen_prefix", lambda *_: None)
    each = method(Net(kind), Request(split, seed=0, numerics=HERE))
    assert each.model.one.read >= read + 4 * N
    for ours, theirs in zip(kept.model.parameters(), each.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
