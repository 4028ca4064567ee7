"""The digits map on a Ray cluster of one node and of two, records in PostgreSQL: speed-up and overhead.

Both nodes are on this machine and have one core each; a job computes with one thread. Workers are warm when the
clock starts: their first import of torch is shown apart.

    python benchmarks/ray_sweep.py [--seeds 1]
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.methods.base import Method
from expunge.registry import METHODS
from expunge.store.record import KINDS
from expunge.store.store import Store
from expunge.sweep.execute import execute
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.sweep.ray_engine import RayEngine
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from postgresql_server import Server, temporary_server

DIFFER = {"seconds", "peak_memory", "provenance", "log"}


def timed(task: Callable[..., Any], *args: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = task(*args)
    return time.perf_counter() - began, result


class Timed:
    """A Ray engine that adds up the seconds its workers compute."""

    def __init__(self, engine: RayEngine) -> None:
        self.engine, self.busy, self.jobs = engine, 0.0, 0

    @property
    def slots(self) -> int:
        return self.engine.slots

    def submit(self, task: Callable[..., Any], /, *args: Any) -> Future[Any]:
        outer: Future[Any] = Future()

        def settle(done: Future[Any]) -> None:
            error = done.exception()
            if error is not None:
                outer.set_exception(error)
                return
            seconds, result = done.result()
            self.busy += seconds
            self.jobs += 1
            outer.set_result(result)

        self.engine.submit(timed, task, *args).add_done_callback(settle)
        return outer

    def close(self) -> None:
        self.engine.close()


def plan(names: list[str], seeds: int) -> Plan:
    tasks = [
        CorruptionTask(regularity=regularity, n_corrupted=100, discovery=discovery, patch=2)
        for regularity in (0.0, 0.5, 1.0)
        for discovery in (0.1, 0.5, 1.0)
    ]
    methods: list[Method] = [METHODS.get(name)() for name in names]
    recipe = Recipe(epochs=4, batch_size=64, augment=False, model_settings={"width": 16})
    return make_plan(
        DataChoice("digits"), tasks, recipe, methods, tuple(range(seeds)), Numerics(channels_last=False)
    )


def numbers(store: Store) -> dict[str, dict[str, object]]:
    return {
        record.key: {name: value for name, value in record.to_row().items() if name not in DIFFER}
        for record in store.database.records()
    }


@dataclass
class Run:
    seconds: float
    warm_up: float
    busy: float
    jobs: int
    numbers: dict[str, dict[str, object]]


def run(nodes: int, work: Plan, server: Server, folder: Path) -> Run:
    from ray.cluster_utils import Cluster
    from sqlalchemy import create_engine

    admin = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE nodes{nodes}")
    admin.dispose()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    with contextlib.ExitStack() as stack:
        stack.callback(cluster.shutdown)
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        engine = Timed(RayEngine(cluster.address))
        stack.callback(engine.close)
        began = time.perf_counter()
        for future in [engine.engine.submit(work.cells[0].training.data.load, "cpu") for _ in range(nodes)]:
            future.result()
        for future in [engine.engine.submit(time.sleep, 2) for _ in range(nodes)]:
            future.result()
        warm_up = time.perf_counter() - began
        store = stack.enter_context(
            Store(folder / str(nodes), server.url.replace("/postgres?", f"/nodes{nodes}?"))
        )
        began = time.perf_counter()
        status = execute(work, store, engine=engine)
        seconds = time.perf_counter() - began
        if status.done != len(work.cells):
            raise SystemExit(f"only {status.done} of {len(work.cells)} cells were done: {status}")
        return Run(seconds, warm_up, engine.busy, engine.jobs, numbers(store))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["none", "finetune", "npo", "ssd"])
    given = parser.parse_args()
    work = plan(given.methods, given.seeds)
    print(
        f"{len(work.cells)} cells, {len(work.trainings)} first models, of {len(KINDS)} fields each",
        flush=True,
    )
    with temporary_server() as server, tempfile.TemporaryDirectory(prefix="expunge-ray-") as folder:
        runs = {nodes: run(nodes, work, server, Path(folder)) for nodes in (1, 2)}
    for nodes, made in runs.items():
        lost = nodes * made.seconds - made.busy
        print(
            f"{nodes} node{'s' if nodes > 1 else ' '}: {made.seconds:6.1f} s, workers computed {made.busy:6.1f} s, "
            f"i.e. {made.busy / made.seconds / nodes:.0%} of the time; {1000 * lost / made.jobs:.0f} ms a job in "
            f"which a worker waited; workers ready after {made.warm_up:.1f} s"
        )
    one, two = runs[1], runs[2]
    print(
        f"speed-up {one.seconds / two.seconds:.2f}; a job computed {two.busy / one.busy:.2f} times as long with a "
        f"neighbour; all records equal: {one.numbers == two.numbers}"
    )


if __name__ == "__main__":
    main()
