"""Sweeps on a Ray cluster of two nodes, both on this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from expunge.engine import WorkerLost
from expunge.errors import Diverged, InvalidInput
from expunge.methods.finetune import FineTune
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.store.store import Store
from expunge.sweep.execute import execute
from expunge.sweep.plan import Cell, DataChoice, Plan, Training, make_plan
from expunge.sweep.ray_engine import RayEngine
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe
from postgresql_server import Server

# Seconds after which a worker counts as stuck; on a busy machine one takes minutes to start.
PATIENCE = 600

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")


def test_what_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for cpus, gpus in ((0.0, 0.0), (1.0, -1.0)):
        with pytest.raises(InvalidInput, match=f"cores above 0 and of GPUs from 0, got {cpus}, {gpus}"):
            RayEngine(cpus=cpus, gpus=gpus)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        InvalidInput, match=r"needs ray, which cannot be .*; run: pip install 'expunge\[ray\]'"
    ):
        RayEngine()


@needs_ray
@pytest.mark.slow
def test_no_cluster() -> None:
    started = time.monotonic()
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(
            InvalidInput, match=f"no Ray cluster answers at '{address}' .*; start one with 'ray"
        ):
            RayEngine(address)
    assert time.monotonic() - started < 30


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster of two nodes with one core each."""
    # Read by what the cluster starts: its workers would give way to every other test.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (as Ray spells it)
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made.address
    made.shutdown()


class Deadly:
    """A Ray engine on which some jobs kill their worker.

    Args:
        engine: the engine.
        kills: whether a job, at its n-th try from 0, does.
    """

    def __init__(self, engine: RayEngine, kills: Callable[[Training | Cell, int], bool]) -> None:
        self.engine, self.kills, self.tries = engine, kills, dict[str, int]()

    @property
    def slots(self) -> int:
        return self.engine.slots

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        job = args[0]
        tried = self.tries.get(job.key, 0)
        self.tries[job.key] = tried + 1
        if self.kills(job, tried):
            return self.engine.submit(lambda *_: os._exit(1), *args)
        return self.engine.submit(task, *args)

    def close(self) -> None:
        self.engine.close()


def plan_of(data: DataChoice) -> Plan:
    recipe = Recipe(epochs=1, batch_size=16, augment=False, model_settings={"width": 8})
    tasks = [CorruptionTask(regularity=r, n_corrupted=10, patch=2, discovery=0.5) for r in (0.0, 1.0)]
    methods = [NoUnlearning(), FineTune(epochs=1, batch_size=16, augment=False), NPO(augment=False)]
    return make_plan(data, tasks, recipe, methods, (0,), Numerics(channels_last=False))


def numbers(store: Store) -> dict[str, object]:
    return {
        record.key: (record.status, record.utility, record.healed, record.asr, record.per_class)
        for record in store.database.records()
    }


@needs_ray
@pytest.mark.slow
def test_engine(cluster: str) -> None:
    engine = RayEngine(cluster)
    try:
        assert engine.slots == 2 + 1
        assert engine.submit(os.getpid).result(PATIENCE) != os.getpid()

        def diverge() -> None:
            raise Diverged("the loss")

        with pytest.raises(Diverged, match=r"^the loss$"):
            engine.submit(diverge).result(PATIENCE)
        with pytest.raises(WorkerLost, match="WorkerCrashedError"):
            engine.submit(lambda: os._exit(1)).result(PATIENCE)
        with pytest.raises(
            InvalidInput, match=r"of the Ray cluster at .* has 2 CPU, 1 GPU for a job; ask for"
        ):
            RayEngine(cluster, cpus=2, gpus=1)
    finally:
        engine.close()


@needs_ray
@pytest.mark.slow
def test_a_sweep_with_lost_workers(
    cluster: str, easy: DataChoice, tmp_path: Path, empty_postgresql: Server
) -> None:
    import ray

    plan = plan_of(easy)
    with Store(tmp_path / "here") as store:
        execute(plan, store, workers=2)
        expected = numbers(store)
    doomed = next(cell.key for cell in plan.cells if cell.method.name == "finetune")
    engine = Deadly(
        RayEngine(cluster),
        # every training and the last cell lose one worker, one cell all of them
        lambda job, tried: (
            job.key == doomed or (tried == 0 and (isinstance(job, Training) or job is plan.cells[-1]))
        ),
    )
    try:
        with Store(tmp_path / "there", empty_postgresql.url, weights=tmp_path / "shared") as store:
            status = execute(plan, store, engine=engine)
            found = numbers(store)
            record = store.database.get(doomed)
    finally:
        engine.close()
    assert not ray.is_initialized()
    assert (status.done, status.failed) == (5, 1)
    assert record is not None
    assert record.error == "the worker process died 3 times while it ran this; is memory short?"
    assert engine.tries[doomed] == 3
    assert engine.tries[plan.cells[-1].key] == 2
    del found[doomed], expected[doomed]
    assert found == expected
