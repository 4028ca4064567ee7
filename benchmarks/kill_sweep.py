"""Kill coordinators and workers of small sweeps at random, then compare with a sweep left in peace.

Two coordinators share one store. Every few seconds one of them, or one of their workers, is killed (signal 9);
a killed coordinator is started again, until both report that nothing is missing. Then every record must be
there once, equal to that of the undisturbed run in every number but times, and no claim may be left that
a living process holds.

    python benchmarks/kill_sweep.py --kills 100 [--seeds 2] [--postgresql]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from sqlalchemy import select

from expunge.data.digits import load_digits
from expunge.methods.finetune import FineTune
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.no_unlearning import NoUnlearning
from expunge.methods.npo import NPO
from expunge.store.owner import Owner
from expunge.store.record import KINDS
from expunge.store.schema import CLAIMS
from expunge.store.store import Store
from expunge.sweep.execute import execute
from expunge.sweep.plan import DataChoice, Plan, make_plan
from expunge.tasks.corruption import CorruptionTask
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from postgresql_server import Server, temporary_server
from worker_processes import workers_of

COORDINATORS, WORKERS = 2, 2
COORDINATOR_SHARE = 0.15
"""Of the kills: those of a coordinator, which cost its workers as well."""
DIFFER = {"seconds", "peak_memory", "provenance", "log"}
"""Fields that hold times or what the machine did else; of the learning curve the losses are compared."""
DATA = "digits.npz"
"""Beside the stores: a worker that reads it need not import scikit-learn, which takes longer than its job."""


def plan(data: Path, seeds: int) -> Plan:
    tasks = [
        CorruptionTask(regularity=regularity, n_corrupted=100, discovery=discovery, patch=2)
        for regularity in (0.0, 0.5, 1.0)
        for discovery in (0.2, 1.0)
    ]
    recipe = Recipe(epochs=2, batch_size=64, augment=False, model_settings={"width": 8})
    methods = [NoUnlearning(), FineTune(epochs=1, augment=False), NPO(augment=False), GradientAscent()]
    return make_plan(
        DataChoice(str(data)), tasks, recipe, methods, range(seeds), Numerics(channels_last=False)
    )


def coordinate(folder: Path, url: str | None, retry: bool, seeds: int) -> None:
    with Store(folder, url) as store:
        status = execute(
            plan(folder.parent / DATA, seeds), store, workers=WORKERS, keep_weights=True, retry_failed=retry
        )
    print(json.dumps([status.done, status.failed, status.elsewhere]), flush=True)


def start(folder: Path, url: str | None, seeds: int, retry: bool = False) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--coordinate", str(folder), "--seeds", str(seeds)]
    command += ["--url", url] if url else []
    return subprocess.Popen(
        [*command, *(["--retry"] if retry else [])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def results(folder: Path, url: str | None) -> dict[str, dict[str, object]]:
    """What must be equal between two runs, by key."""
    with Store(folder, url) as store:
        rows = [record.to_row() for record in store.database.records()]
    found = {}
    for row in rows:
        kept = {name: row[name] for name in KINDS if name not in DIFFER}
        kept["losses"] = [entry.get("loss") for entry in row["log"]]
        found[str(row["key"])] = kept
    return found


@dataclass
class Tally:
    rounds: int = 0
    coordinators: int = 0
    workers: int = 0
    cells: int = 0
    repeated: int = 0
    leftovers: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return self.coordinators + self.workers


def disturbed(
    folder: Path, url: str | None, seeds: int, kills: int, pause: float, draw: random.Random, tally: Tally
) -> None:
    """One sweep, with kills until the quota is reached."""
    began = time.monotonic()
    running = [start(folder, url, seeds) for _ in range(COORDINATORS)]
    seen: set[str] = set()
    while running:
        time.sleep(draw.uniform(0.2, pause) if tally.kills < kills else 0.2)
        for process in list(running):
            if process.poll() is not None:
                _, errors = process.communicate()
                if process.returncode != 0:
                    raise SystemExit(f"a coordinator ended with {process.returncode}:\n{errors}")
                running.remove(process)
        if not running or tally.kills >= kills:
            continue
        if draw.random() < COORDINATOR_SHARE:
            victims = [(process.pid, process) for process in running]
        else:
            victims = [(worker, None) for process in running for worker in workers_of(process.pid)]
        if not victims:  # all have only just started
            continue
        pid, coordinator = draw.choice(victims)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if coordinator is None:
            tally.workers += 1
        else:
            tally.coordinators += 1
            coordinator.communicate()
            running.remove(coordinator)
            running.append(start(folder, url, seeds))
        with Store(folder, url) as store:
            now = store.database.keys("done")
        if not seen <= now:
            raise SystemExit(f"finished records were lost: {seen - now}")
        seen = now
    tally.seconds.append(time.monotonic() - began)


def complete(
    folder: Path, url: str | None, seeds: int, expected: dict[str, dict[str, object]], tally: Tally
) -> None:
    """Give cells that lost three workers another chance, then compare."""
    with Store(folder, url) as store:
        failed = store.database.keys("failed")
    if failed:
        tally.repeated += len(failed)
        start(folder, url, seeds, retry=True).communicate()
    found = results(folder, url)
    if found != expected:
        wrong = [key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key)]
        raise SystemExit(f"{len(wrong)} of {len(expected)} records differ, e.g. {wrong[0]}")
    with Store(folder, url) as store:
        owners = store.database.transact("read", lambda c: c.scalars(select(CLAIMS.c.owner)).all())
        for key in expected:
            store.weights.load(key)
    # Those of killed coordinators that nobody needed again stay until they expire.
    living = [owner for owner in map(Owner.parse, owners) if owner is None or not owner.is_gone()]
    if living:
        raise SystemExit(f"claims are left that nobody could take over: {living}")
    tally.rounds += 1
    tally.cells += len(found)
    tally.leftovers += len(list((folder / "weights").glob(".*.partial")))


def fresh(server: Server | None, number: int) -> str | None:
    """URL of an empty database on the server, if there is one."""
    if server is None:
        return None
    from sqlalchemy import create_engine

    engine = create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE sweep{number}")
    engine.dispose()
    return server.url.replace("/postgres?", f"/sweep{number}?")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--pause", type=float, default=6.0, help="longest time between two kills, seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2, help="24 cells each")
    parser.add_argument("--postgresql", action="store_true", help="keep the records on a server")
    for hidden in ("--coordinate", "--url"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--retry", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.coordinate:
        torch.set_num_threads(1)
        coordinate(Path(given.coordinate), given.url, given.retry, given.seeds)
        return

    tally, draw = Tally(), random.Random(given.seed)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="expunge-kill-")))
        server = stack.enter_context(temporary_server()) if given.postgresql else None
        digits = load_digits()
        np.savez(
            folder / DATA, images=digits.train_images[:, 0], labels=digits.train_labels,
            test_images=digits.test_images[:, 0], test_labels=digits.test_labels,
        )  # fmt: skip
        began = time.monotonic()
        undisturbed = start(folder / "reference", None, given.seeds)
        output, errors = undisturbed.communicate()
        if undisturbed.returncode:
            raise SystemExit(errors)
        alone = time.monotonic() - began
        expected = results(folder / "reference", None)
        print(
            f"undisturbed, one coordinator: {output.strip()} done, failed, elsewhere in {alone:.1f} s",
            flush=True,
        )
        while tally.kills < given.kills:
            place, url = folder / str(tally.rounds), fresh(server, tally.rounds)
            disturbed(place, url, given.seeds, given.kills, given.pause, draw, tally)
            complete(place, url, given.seeds, expected, tally)
            print(
                f"round {tally.rounds}: {tally.coordinators} coordinators and {tally.workers} workers killed so far, "
                f"{tally.seconds[-1]:.1f} s; {len(expected)} records, all equal",
                flush=True,
            )
    print(
        f"{tally.kills} kills ({tally.coordinators} of a coordinator, {tally.workers} of a worker) in {tally.rounds} "
        f"sweeps: {tally.cells} records, each there once and equal bit for bit; {tally.repeated} cells lost three "
        f"workers and were run again; {tally.leftovers} half-written files left aside; "
        f"{statistics.mean(tally.seconds) / alone:.1f} times the undisturbed time on average"
    )


if __name__ == "__main__":
    main()
