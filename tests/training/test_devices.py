from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

import expunge
from expunge.data.examples import Batch, Examples
from expunge.data.joined import in_memory
from expunge.errors import Diverged, ExpungeError, InvalidInput
from expunge.methods.base import Request, Unlearned
from expunge.models.convnet import ConvNet
from expunge.models.mlp import MLP
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.difficulty import LossRecorder
from expunge.training.launch import launch
from expunge.training.loop import cross_entropy, fit
from expunge.training.numerics import Devices, Numerics
from expunge.training.recipe import Optimiser, Recipe
from expunge.training.shared_statistics import SharedStatistics
from expunge.training.team import current_team, part_of
from worker_processes import is_alive

ONE = Numerics(channels_last=False)
TWO = replace(ONE, devices=Devices(2))
SHARDED = replace(ONE, devices=Devices(2, "fsdp"))


def examples(count: int = 61) -> Examples:
    """61 in batches of 12 end with 1 example, fewer than there are processes."""
    draw = torch.Generator().manual_seed(1)
    return in_memory(torch.randn(count, 1, 8, 8, generator=draw), torch.arange(count) % 4, 4)


def network(kind: str) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(1, 8, 4) if kind == "mlp" else ConvNet(1, 8, 4, width=8)


def unlearned(kind: str, numerics: Numerics, method: str, **settings: object) -> Unlearned:
    request = Request(Split(examples(), torch.arange(0, 40, 4)), seed=3, numerics=numerics)
    chosen = expunge.load_method(method, batch_size=12, augment=False, **settings)
    return chosen(network(kind), request)


def finetuned(kind: str, numerics: Numerics) -> Unlearned:
    return unlearned(kind, numerics, "finetune", epochs=2)


def rem(kind: str, numerics: Numerics) -> Unlearned:
    return unlearned(kind, numerics, "rem", rounds=2, flush_passes=2, threshold=0.05)


def relearned(kind: str, numerics: Numerics) -> Unlearned:
    """A network that knows its examples, of which those with a bright corner are wrong."""
    train = examples(240)
    train.source.inputs[:40, :, :3, :3] = 3.0
    train.labels[:40] = 2
    recipe = Recipe(model="convnet", epochs=8, batch_size=12, augment=False, optimiser=Optimiser(lr=0.05))
    model = network(kind)
    recipe.train(model, train, 5, replace(numerics, devices=Devices()), Meter())
    request = Request(Split(train, torch.arange(10)), seed=3, numerics=numerics, recipe=recipe)
    return expunge.load_method("relearn", least_steps=0)(model, request)


def recorded(kind: str, numerics: Numerics) -> tuple[nn.Module, Tensor]:
    """60 in batches of 12: every batch is divided."""
    model, recorder = network(kind), LossRecorder(60, "cpu")
    recipe = Recipe(epochs=2, batch_size=12, augment=False)
    recipe.train(model, examples(60), 5, numerics, Meter(), objective=recorder)
    return model, recorder.means()


CASES: dict[str, tuple[Callable[[str, Numerics], object], str]] = {
    "fine-tuned mlp": (finetuned, "mlp"),
    "fine-tuned convnet": (finetuned, "convnet"),
    "rem on a convnet": (rem, "convnet"),
    "relearned convnet": (relearned, "convnet"),
    "recorded convnet": (recorded, "convnet"),
}


def every_case(numerics: Numerics) -> dict[str, object]:
    return {name: case(kind, numerics) for name, (case, kind) in CASES.items()}


@pytest.fixture(scope="module")
def on_two() -> dict[str, object]:
    return launch(TWO, every_case, TWO)


def assert_same(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), theirs in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(
            mine, theirs, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("name", list(CASES))
def test_two_processes_end_where_one_does(name: str, on_two: dict[str, object]) -> None:
    case, kind = CASES[name]
    alone, shared = case(kind, ONE), on_two[name]
    if isinstance(alone, Unlearned) and isinstance(shared, Unlearned):
        assert_same(alone.model, shared.model)
        assert alone.cost.sample_gradients == shared.cost.sample_gradients > 0
        assert [row.keys() for row in alone.log] == [row.keys() for row in shared.log]
    else:
        assert isinstance(alone, tuple)
        assert isinstance(shared, tuple)
        assert_same(alone[0], shared[0])
        torch.testing.assert_close(alone[1], shared[1], rtol=0, atol=1e-5)


def test_training_moves_the_parameters_much_further_than_two_processes_differ() -> None:
    start, end = network("convnet").state_dict(), finetuned("convnet", ONE).model.state_dict()
    assert max(float((start[name] - end[name]).abs().max()) for name in start if "weight" in name) > 1e-3


def with_state(kind: str, numerics: Numerics) -> Unlearned:
    """One optimiser for four trainings, so that its state is divided and put together again between them."""
    return unlearned(kind, numerics, "rem_ascent", rounds=2, flush_passes=2, threshold=0.05)


def adam(kind: str, numerics: Numerics) -> Unlearned:
    return unlearned(kind, numerics, "npo", passes=3, threshold=0.0, optimiser="adamw", lr=1e-3)


SHARDED_CASES = ((finetuned, "mlp"), (finetuned, "convnet"), (adam, "mlp"), (with_state, "convnet"))


def sharded_cases(numerics: Numerics) -> list[Unlearned]:
    return [case(kind, numerics) for case, kind in SHARDED_CASES]


@pytest.mark.slow
def test_sharded_training_ends_where_one_process_does() -> None:
    for alone, shared in zip(sharded_cases(ONE), launch(SHARDED, sharded_cases, SHARDED), strict=True):
        assert_same(alone.model, shared.model)
        assert alone.cost.sample_gradients == shared.cost.sample_gradients > 0


@pytest.mark.slow
def test_a_call_and_a_recipe_start_the_processes_themselves() -> None:
    model, recipe = network("mlp"), Recipe(epochs=1, batch_size=12, augment=False)
    results, counts = [], []
    for numerics in (ONE, TWO):
        trained, meter = copy.deepcopy(model), Meter()
        recipe.train(trained, examples(), 5, numerics, meter)
        results.append(trained)
        counts.append(meter.sample_gradients)
    assert_same(*results)
    assert counts == [61, 61]
    settings = {"method": "npo", "passes": 2, "threshold": 0.0, "batch_size": 8, "augment": False}
    given = {"forget": [0, 4, 8], "device": "cpu", **settings}
    alone = expunge.unlearn(model, examples(), **given)
    shared = expunge.unlearn(model, examples(), devices=Devices(2), **given)
    assert_same(alone.model, shared.model)
    assert current_team() is None


def fail_on_the_second(how: str) -> None:
    team = current_team()
    assert team is not None
    if team.fabric.global_rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise Diverged("the loss became NaN here")
    team.agree(torch.zeros(1))
    distributed.barrier()


@pytest.mark.slow  # as the others are: the first start of the processes takes ten seconds
@pytest.mark.parametrize("how", ["raised", "killed"])
def test_a_failing_process_ends_the_others_with_its_error(how: str) -> None:
    before = {name: os.environ.get(name) for name in ("MASTER_PORT", "TORCH_CPP_LOG_LEVEL")}
    expected, message = (Diverged, "NaN here") if how == "raised" else (ExpungeError, "left no error")
    with pytest.raises(expected, match=message):
        launch(TWO, fail_on_the_second, how)
    assert not multiprocessing.active_children()
    # A port that stayed in the environment would be that of the next call too.
    assert before == {name: os.environ.get(name) for name in before}


START = """
import sys
sys.path[:0] = {folders!r}
from test_devices import TWO, launch, say_and_wait
if __name__ == "__main__":
    launch(TWO, say_and_wait, {told!r})
"""


def say_and_wait(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    told, script = tmp_path / "told", tmp_path / "start.py"
    told.mkdir()
    script.write_text(
        START.format(folders=[str(folder) for folder in Path(__file__).parents[:2]], told=str(told))
    )
    starter = subprocess.Popen([sys.executable, script])
    try:
        deadline = time.monotonic() + 120
        while len(started := [int(entry.name) for entry in told.iterdir()]) < 2:
            assert time.monotonic() < deadline
            assert starter.poll() is None
            time.sleep(0.05)
        assert all(is_alive(process) for process in started)
    finally:
        starter.kill()
        starter.wait(60)
    deadline = time.monotonic() + 10
    while any(is_alive(process) for process in started):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_parts_of_a_batch_are_disjoint_and_weigh_one() -> None:
    batch = Batch(torch.arange(7.0)[:, None], torch.arange(7), torch.arange(7) + 10)
    parts = [part_of(batch, rank, 3) for rank in range(3)]
    assert [part.batch.index.tolist() for part in parts] == [[10, 13, 16], [11, 14], [12, 15]]
    mean = sum(part.weight * float(part.batch.x.mean()) for part in parts)
    assert mean == pytest.approx(float(batch.x.mean()))
    small = [part_of(batch.take(torch.tensor([4, 2])), rank, 3) for rank in range(3)]
    assert all(len(part.batch) == 2 and not part.divided for part in small)
    assert sum(part.weight for part in small) == pytest.approx(1)


@pytest.fixture
def lone_group() -> Iterator[None]:
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=20))
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("lone_group")
@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 4), (5, 3, 2, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_shared_batch_norm_is_torch_s_over_one_process(shape: tuple[int, ...], training: bool) -> None:
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    results = []
    for shared in (False, True):
        given = x.clone().requires_grad_()
        weight = torch.linspace(1, 2, 3, dtype=torch.float64).requires_grad_()
        bias = torch.linspace(-1, 1, 3, dtype=torch.float64).requires_grad_()
        running = [torch.full((3,), value, dtype=torch.float64) for value in (0.5, 2.0)]
        arguments = (given, *running, weight, bias, training, 0.3, 1e-3)
        if shared:
            with SharedStatistics():
                y = F.batch_norm(*arguments)
        else:
            y = F.batch_norm(*arguments)
        y.pow(3).sum().backward()
        results.append([y.detach(), *running, given.grad, weight.grad, bias.grad])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("numerics", "method", "settings", "message"),
    [
        (TWO, "rem", {"erase_mean": True}, "drop erase_mean"),
        (SHARDED, "rem", {}, "use 'ddp'"),
        (TWO, "rem_attached", {}, "use 'rem'"),
        (SHARDED, "l1_sparse", {}, "use 'ddp'"),
        (SHARDED, "cf_k", {"k": 1}, "use 'ddp'"),
    ],
)
def test_methods_that_cannot_be_shared_say_what_to_use(
    numerics: Numerics, method: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidInput, match=message):
        unlearned("mlp", numerics, method, **settings)


def test_lotus_refuses_and_a_method_without_steps_runs_here() -> None:
    with pytest.raises(InvalidInput, match="run it on one"):
        expunge.load_method("lotus").check_devices(Devices(2))
    split = Split(examples(), torch.arange(0, 40, 4))
    results = [
        expunge.load_method("ssd")(network("mlp"), Request(split, seed=3, numerics=numerics))
        for numerics in (ONE, TWO)
    ]
    assert_same(results[0].model, results[1].model)


def test_what_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match="at least 1, got 0"):
        Devices(0)
    with pytest.raises(InvalidInput, match="'auto', 'ddp' or 'fsdp', got 'dp'"):
        Devices(2, "dp")
    with pytest.raises(InvalidInput, match="named by their kind"):
        Numerics("cuda:0", devices=Devices(2))
    with pytest.raises(InvalidInput, match="top of a module"):
        launch(TWO, lambda: None)
    with pytest.raises(InvalidInput, match="an objective is a copy"):
        recorded("mlp", TWO)
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InvalidInput, match="start it alone"):
        launch(TWO, every_case, TWO)
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InvalidInput, match="torch sees 1 here"):
        launch(replace(TWO, device="cuda"), every_case, TWO)


def test_a_step_of_one_process_is_as_before() -> None:
    """Bit for bit what zero_grad, backward and step by hand give."""
    mine, theirs = network("mlp"), network("mlp")
    batches = list(examples().batches(12))
    optimizer = Optimiser(lr=0.1).over(mine)
    meter = Meter()
    fit(mine, [batches], cross_entropy, optimizer, ONE, meter)
    by_hand = Optimiser(lr=0.1).over(theirs)
    for batch in batches:
        by_hand.zero_grad()
        F.cross_entropy(theirs(batch.x), batch.y).backward()
        by_hand.step()
    assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), theirs.parameters(), strict=True))
    assert meter.sample_gradients == 61
