"""What expunge does on an accelerator: right, how fast, and how well; results are written as they come.

Usage: python benchmarks/accelerator.py [--seconds 540] [--device cuda] [--data FOLDER] [--out accelerator.jsonl]
       [--only environment,equality,speed,grid] [--methods none,rem] [--grid paper] [--seed 0] [--threads N] [--quick]

Four parts, the most important first, each within the time that is left; an error is written down, and the rest goes on.

environment  versions, device, precision.
equality     every method for ten steps in float32 on the device and on the CPU: how far weights and logits are apart,
             beside what a change of the last bit of the weights does on the CPU; waits for the device in a step.
speed        images a second of training and of REM's methods, eager, compiled and as a CUDA graph; peak memory.
grid         cells of the grid "paper" at 10 % known (poison, random, swap) on CIFAR-10 from --data; on the CPU of the
             grid "digits". Several processes with one --out share them: start as many as the device bears.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import platform
import statistics
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from expunge.data.examples import Batch, Examples
from expunge.data.images import Augmentation, ImageData
from expunge.data.synthetic import learnable_images
from expunge.errors import InvalidInput
from expunge.evaluation.evaluate import evaluate
from expunge.methods.base import Method, Needs, Request
from expunge.registry import METHODS
from expunge.seeding import generator
from expunge.store.weights import WeightStore
from expunge.sweep.grid import Grid
from expunge.sweep.plan import Cell, Training, evaluation_epochs, make_plan
from expunge.sweep.preset import Preset
from expunge.sweep.run import run_cell, run_training
from expunge.tasks.base import Problem
from expunge.tasks.corruption import CorruptionTask
from expunge.tasks.forgetting import ForgetClasses
from expunge.tasks.regularity import regularity_name
from expunge.training.cost import Meter
from expunge.training.loop import cross_entropy, fit, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

REGULARITIES = ("poison", "random", "interclass")
GRID_METHODS = (
    "none", "retrain", "relearn", "rem", "rem_without_redirection", "npo", "delete", "scrub", "potion", "finetune",
)  # fmt: skip
SEEDS = 3
TEN_STEPS = {
    "epochs": 1, "rounds": 1, "steps": 2, "least_steps": 10, "max_epochs": 1, "noise_steps": 4, "noise_copies": 1,
    "batch_size": 32, "forget_batch_size": 32, "max_examples": 64, "flush_passes": 3,
}  # fmt: skip
_LAST_BIT = 2.0**-23
_PLACES = 12
"""Places at which a method waits for the device that are named, the most frequent first."""


@dataclass
class Bench:
    """The options, the clock and the file that results go to."""

    options: argparse.Namespace
    started: float = field(default_factory=time.monotonic)

    @property
    def device(self) -> str:
        device: str = self.options.device
        return device

    @property
    def accelerated(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def left(self) -> float:
        return float(self.options.seconds) - (time.monotonic() - self.started)

    def write(self, part: str, **row: Any) -> None:
        """Append one line; a single write, so that processes can share the file."""
        row = {"part": part, "at": round(time.time(), 2), "process": os.getpid(), **row}
        line = json.dumps(row, default=str) + "\n"
        with Path(self.options.out).open("a", encoding="utf-8") as file:
            file.write(line)
        print(line, end="", flush=True)

    def attempt(
        self, part: str, what: str, seconds: float, call: Callable[[], dict[str, Any] | None]
    ) -> None:
        """Write what ``call`` returns, or its error; skip it if ``seconds``, what it may take, are not left."""
        if self.left < seconds:
            self.write(part, what=what, skipped=f"{self.left:.0f} s left, about {seconds:.0f} s needed")
            return
        begun = time.monotonic()
        try:
            row = call()
            if row is not None:
                self.write(part, what=what, took=round(time.monotonic() - begun, 2), **row)
        except Exception as error:  # whatever goes wrong here, the other measurements are wanted
            self.write(
                part, what=what, took=round(time.monotonic() - begun, 2), error=type(error).__name__,
                message=str(error)[:2000], traceback=traceback.format_exc().splitlines()[-12:],
            )  # fmt: skip
        if self.accelerated:
            torch.cuda.empty_cache()


# ---------------------------------------------------------------------------------------------- environment


def environment(bench: Bench) -> None:
    def look() -> dict[str, Any]:
        found: dict[str, Any] = {
            "torch": torch.__version__, "python": platform.python_version(), "device": bench.device,
            "numerics": str(Numerics.choose(bench.device)), "threads": torch.get_num_threads(),
            "cpus": os.cpu_count(), "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "tf32_products": torch.backends.cuda.matmul.allow_tf32,
        }  # fmt: skip
        if bench.accelerated:
            properties = torch.cuda.get_device_properties(bench.device)
            found |= {
                "name": properties.name, "memory": properties.total_memory, "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(), "processors": properties.multi_processor_count,
            }  # fmt: skip
        return found

    bench.attempt("environment", "machine", 0, look)


# ------------------------------------------------------------------------------------------------- equality


def shortened(method: Method, **limits: Any) -> Method:
    """Return the method with those of the settings ``limits`` that it has, but for one if it refuses them."""
    known = {entry.name for entry in dataclasses.fields(method)}
    wanted = {name: value for name, value in limits.items() if name in known}
    for left_out in ("", *wanted):
        try:
            return replace(method, **{name: value for name, value in wanted.items() if name != left_out})
        except InvalidInput:
            continue
    return method


def trial(method: Method) -> tuple[CorruptionTask | ForgetClasses, Recipe]:
    """Return a small task and first training that ``method`` can work on."""
    task: CorruptionTask | ForgetClasses = CorruptionTask(regularity=1.0, discovery=0.5, n_corrupted=32)
    # A forget set that is known less than unseen data leaves LoTUS nothing to do; whole classes never are.
    if (Needs.CLASSES | Needs.UNSEEN) & method.needs:
        task = ForgetClasses(classes=(1,))
    recipe = Recipe(
        model="resnet9", model_settings={"width": 16}, epochs=1, batch_size=32, optimiser=Optimiser(lr=0.05)
    )
    return task, recipe.prepared(method.preparation)


def trial_images() -> ImageData:
    images = learnable_images(n_train=384, n_test=128, n_classes=6, size=16)
    return replace(images, augmentation=Augmentation(2, True)).hold_out(64)


@contextmanager
def _exact_products() -> Iterator[None]:
    former = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = former


@contextmanager
def waits(bench: Bench) -> Iterator[Counter[str] | None]:
    """Count by place how often the host waits for the device; ``None`` where torch cannot tell."""
    if not bench.accelerated:
        yield None
        return
    places: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield places
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for entry in caught:
        if "synchronizing" in str(entry.message):
            file = Path(entry.filename)
            places[f"{file.parent.name}/{file.name}:{entry.lineno}"] += 1


@contextmanager
def counted_steps() -> Iterator[list[int]]:
    """Count the optimisers' steps, in the only entry of the list."""
    steps = [0]

    def count(*_: Any) -> None:
        steps[0] += 1

    handle = register_optimizer_step_post_hook(count)
    try:
        yield steps
    finally:
        handle.remove()


@dataclass(frozen=True)
class Outcome:
    weights: Tensor
    logits: Tensor
    measured: Tensor
    seconds: float
    steps: int
    waits: Counter[str] | None

    def apart(self, other: Outcome) -> dict[str, float]:
        """Distance to ``other``, as shares of the other's norm and of its largest entry; of metrics the largest."""
        return {"metrics": float((self.measured - other.measured).abs().max())} | {
            f"{name}_{kind}": measure(mine, theirs)
            for name, mine, theirs in (
                ("weights", self.weights, other.weights),
                ("logits", self.logits, other.logits),
            )
            for kind, measure in (("norm", _relative_norm), ("max", _relative_maximum))
        }


def _relative_norm(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).norm() / theirs.norm())


def _relative_maximum(mine: Tensor, theirs: Tensor) -> float:
    return float((mine - theirs).abs().max() / theirs.abs().max())


def carry_out(
    bench: Bench,
    method: Method,
    model: nn.Module,
    problem: Problem,
    recipe: Recipe,
    seed: int,
    numerics: Numerics,
) -> Outcome:
    """Run ``method`` where ``numerics`` says."""
    codes = recipe.draw_codes(seed, problem.shape, problem.n_classes)
    request = Request(
        problem.split, seed=seed, numerics=numerics, recipe=recipe, truth=problem.truth,
        codes=None if codes is None else codes.to(numerics.device),
    )  # fmt: skip
    with waits(bench) as places, counted_steps() as steps:
        unlearned = method(model, request)
    measured = evaluate(unlearned.model, problem, numerics)
    numbers = [measured[name] for name in ("utility", "healed", "asr", "corruption_learned")]
    state = [tensor for tensor in unlearned.model.state_dict().values() if tensor.is_floating_point()]
    return Outcome(
        torch.cat([tensor.detach().cpu().double().flatten() for tensor in state]),
        predict(unlearned.model, problem.truth.sets["test"], numerics).cpu().double(),
        torch.tensor([0.0 if number is None else number for number in numbers]),
        unlearned.cost.seconds, steps[0], places,
    )  # fmt: skip


def equality(bench: Bench) -> None:
    images, seed = trial_images(), bench.options.seed
    cpu, device = Numerics(), Numerics(bench.device)
    trained: dict[str, dict[str, Tensor]] = {}

    def compare(name: str) -> dict[str, Any]:
        method = shortened(METHODS.get(name)(), **TEN_STEPS)
        task, recipe = trial(method)
        here, there = task.build(images), task.build(images.to(bench.device))
        model = recipe.build(here.shape, here.n_classes, generator(seed, "initialisation"))
        known = repr((task, recipe))
        if known not in trained:
            longer = replace(recipe, epochs=4)
            longer.train(model, here.split.train, seed, cpu, Meter())
            trained[known] = model.state_dict()
        model.load_state_dict(trained[known])
        nudged = copy.deepcopy(model)
        draw = generator(seed, "last bit")
        with torch.no_grad():
            for parameter in nudged.parameters():
                parameter *= 1 + _LAST_BIT * (2 * torch.randint(2, parameter.shape, generator=draw) - 1)
        with _exact_products():
            reference = carry_out(bench, method, model, here, recipe, seed, cpu)
            other = carry_out(bench, method, nudged, here, recipe, seed, cpu)
            ours = carry_out(bench, method, model, there, recipe, seed, device)
        seen = ours.waits or Counter()
        total = sum(seen.values())
        return {
            **ours.apart(reference),
            "floor": other.apart(reference),
            "steps": ours.steps,
            "waits": None if ours.waits is None else total,
            "waits_a_step": round(total / ours.steps, 2) if ours.waits is not None and ours.steps else None,
            "places": dict(seen.most_common(_PLACES)),
            "seconds": ours.seconds,
            "cpu_seconds": reference.seconds,
        }

    for name in bench.options.methods or METHODS.names():
        bench.attempt("equality", name, 5 if bench.accelerated else 1, lambda name=name: compare(name))


# ---------------------------------------------------------------------------------------------------- speed


@dataclass(frozen=True)
class Compiled(Numerics):
    """Numerics that compile every network they place."""

    def place(self, model: nn.Module) -> nn.Module:
        super().place(model).compile()
        return model


@dataclass
class Speed:
    """Images a second, measured on made images of CIFAR-10's size that a network learns at once."""

    bench: Bench
    rates: dict[tuple[int, int], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        quick = self.bench.options.quick
        self.count = 1536 if quick else 50_000 if self.bench.accelerated else 4096
        draw = torch.Generator().manual_seed(0)
        prototypes = torch.randint(0, 128, (10, 3, 32, 32), dtype=torch.uint8, generator=draw)
        labels, test_labels = torch.arange(self.count) % 10, torch.arange(512) % 10
        train, test = (
            prototypes[own] + torch.randint(0, 128, (len(own), 3, 32, 32), dtype=torch.uint8, generator=draw)
            for own in (labels, test_labels)
        )
        self.images = ImageData(
            "made", train, labels, test, test_labels,
            tuple(map(str, range(10))), (0.5,) * 3, (0.25,) * 3, Augmentation(4, True),
        ).to(self.bench.device)  # fmt: skip
        task = CorruptionTask(regularity=1.0, discovery=0.1, n_corrupted=self.count // 50)
        self.problem = task.build(self.images)
        self.train: Examples = self.problem.split.train
        self.first: dict[int, nn.Module] = {}
        self.numerics = Numerics.choose(self.bench.device)
        self.window = 0.1 if quick else 1.5

    def recipe(self, width: int, batch: int) -> Recipe:
        return Recipe(model_settings={"width": width}, epochs=1, batch_size=batch)

    def network(self, width: int) -> nn.Module:
        return self.recipe(width, 1).build(self.images.shape, 10, torch.Generator().manual_seed(0))

    def trained(self, width: int) -> nn.Module:
        """Return a network that knows the images, and the given labels of the forget set."""
        if width not in self.first:
            recipe, numerics = self.recipe(width, 512), self.numerics
            model = recipe.train(self.network(width), self.train, 0, numerics, Meter())
            forget = replace(recipe, epochs=20, augment=False, optimiser=Optimiser(lr=0.01))
            self.first[width] = forget.train(model, self.problem.split.forget, 0, numerics, Meter())
        return self.first[width]

    def _reset(self) -> None:
        if self.bench.accelerated:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()

    def _peak(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.bench.accelerated else None

    def _timed(self, run: Callable[[int], float], batch: int) -> float:
        """Return images a second, the median of three windows; ``run`` makes steps and returns their seconds."""
        run(3)
        most = self.count // batch
        once = run(min(10, most)) / min(10, most)
        steps = max(1, min(most, int(self.window / once)))
        return steps * batch / statistics.median(run(steps) for _ in range(3))

    def plain(self, width: int, batch: int, engine: str) -> dict[str, Any]:
        """Train by the package's loop, on what its reader yields, augmented."""
        numerics = self.numerics
        model = numerics.place(self.network(width))
        optimizer = self.recipe(width, batch).optimiser.over(model)
        order = torch.Generator().manual_seed(0)

        def batches(steps: int) -> Iterator[Batch]:
            part = self.train.select(torch.arange(steps * batch))
            return part.batches(batch, order, augment=True)

        def eager(steps: int) -> float:
            with Meter(numerics.device) as meter:
                fit(model, [batches(steps)], cross_entropy, optimizer, numerics, meter)
            return meter.seconds

        row: dict[str, Any] = {}
        run = eager
        self._reset()
        if engine == "compiled":
            model.compile()
            row["first_step_seconds"] = eager(1)
        elif engine == "cuda graph":
            run = self._graphed(model, optimizer, next(iter(batches(1))), batches)
        rate = self._timed(run, batch)
        if engine == "eager":
            self.rates[width, batch] = rate
        return row | {
            "width": width, "batch": batch, "engine": engine, "images_per_second": round(rate, 1),
            "step_ms": round(1000 * batch / rate, 3), "peak_memory": self._peak(),
            "seconds_of_24_epochs_of_50000": round(24 * 50_000 / rate, 1),
        }  # fmt: skip

    def _graphed(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        first: Batch,
        batches: Callable[[int], Iterator[Batch]],
    ) -> Callable[[int], float]:
        """Return a run of steps that replay one recorded step."""
        numerics = self.numerics
        held = Batch(numerics.place_inputs(first.x).clone(), first.y.clone(), first.index)
        half = numerics.dtype == "bfloat16"
        model.train()

        def step() -> None:
            # a cached cast would be recorded once and go stale
            with torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False):
                loss = cross_entropy(model, held)
            loss.value.backward()
            optimizer.step()

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                optimizer.zero_grad(set_to_none=True)
                step()
        torch.cuda.current_stream().wait_stream(stream)
        optimizer.zero_grad(set_to_none=True)  # so that the gradients come to lie in the graph's memory
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()

        def run(steps: int) -> float:
            with Meter(numerics.device) as meter:
                for batch in batches(steps):
                    held.x.copy_(batch.x)
                    held.y.copy_(batch.y)
                    graph.replay()
            return meter.seconds

        return run

    def method(self, name: str, width: int, compiled: bool, short: bool = True) -> dict[str, Any]:
        """Time a method as it is called, beside a pass of training at its batch size."""
        method: Method = METHODS.get(name)()
        if short or self.bench.options.quick:
            method = shortened(method, rounds=1, epochs=1)
        numerics = Compiled(**vars(self.numerics)) if compiled else self.numerics
        model = self.trained(width)
        batch = int(getattr(method, "batch_size", None) or 512)

        def request() -> Request:
            return Request(self.problem.split, seed=0, numerics=numerics, recipe=self.recipe(width, batch))

        first = shortened(method, rounds=1, epochs=1)(
            model, request()
        ).cost.seconds  # it compiles and allocates
        self._reset()
        cost = method(model, request()).cost
        passes = cost.sample_gradients / self.count
        pass_seconds = cost.seconds / max(passes, 1e-9)
        row = {
            "width": width, "batch": batch, "engine": "compiled" if compiled else "eager",
            "settings": "one round or epoch" if short else "default", "seconds": round(cost.seconds, 3),
            "first_run_seconds": round(first, 3), "passes": round(passes, 3),
            "images_per_second": round(cost.sample_gradients / cost.seconds, 1), "peak_memory": self._peak(),
        }  # fmt: skip
        if (width, batch) in self.rates:
            training = self.count / self.rates[width, batch]
            row["pass_over_training_pass"] = round(pass_seconds / training, 3)
            row["share_of_24_epochs"] = round(cost.seconds / (24 * training), 4)
        return row


def speed(bench: Bench) -> None:
    made: list[Speed] = []
    bench.attempt("speed", "data", 0, lambda: made.append(Speed(bench)))
    if not made:
        return
    speed = made[0]
    sizes = [(8, 512)] if bench.options.quick else [(32, 512), (64, 512), (32, 128), (64, 128)]
    if not bench.accelerated:
        sizes = sizes[:1]

    def plain(engine: str, seconds: float, sizes: Sequence[tuple[int, int]] = sizes) -> None:
        for width, batch in sizes:
            bench.attempt(
                "speed", f"training, {engine}", seconds, lambda w=width, b=batch: speed.plain(w, b, engine)
            )

    def methods(
        width: int,
        seconds: float,
        compiled: bool,
        short: bool = True,
        names: Sequence[str] = ("relearn", "rem"),
    ) -> None:
        for name in names:
            if name in METHODS.names() and name in (bench.options.methods or METHODS.names()):
                bench.attempt("speed", name, seconds, lambda n=name: speed.method(n, width, compiled, short))

    first = sizes[0][0]
    plain("eager", 8)
    if bench.accelerated:
        plain("cuda graph", 10)
    methods(first, 20, compiled=False)
    if bench.accelerated and not bench.options.quick:
        methods(64, 30, compiled=False)
        methods(64, 60, compiled=False, short=False)
        plain("compiled", 75, sizes[:2])
        methods(64, 120, compiled=True, names=("rem",))  # relearn works on a copy, which is not compiled
        plain("compiled", 75, sizes[2:])


# ----------------------------------------------------------------------------------------------------- grid


@dataclass
class Cells:
    """First models and cells of a packaged grid at 10 % known, in order; shared with other processes by marks."""

    bench: Bench
    grid: Grid
    queue: list[Training | Cell] = field(default_factory=list)
    pace: float = 0.0
    """Seconds for one epoch of work, the most that a job of this process took."""
    not_begun: int = 0
    """Jobs for which this process has no time left, or whose first model failed."""

    def __post_init__(self) -> None:
        self.folder = Path(self.bench.options.out).with_suffix(".work")
        self.weights = WeightStore(self.folder / "weights")
        self.setup = self.grid.setups[0]

    def lay_out(self) -> dict[str, Any]:
        """Fill the queue: seed by seed and task by task, the first model and then its cells."""
        options, recipe = self.bench.options, self.setup.recipe
        preset = Preset.of(options.grid)
        own = {method.name: method for method in self.setup.methods}
        methods = [
            own.get(name) or preset.make_method(name)
            for name in options.methods or GRID_METHODS
            if name in METHODS.names()
        ]
        tasks = [preset.make_task(regularity=regularity, discovery=0.1) for regularity in REGULARITIES]
        data = replace(self.grid.data, root=options.data)
        seeds = range(options.seed, options.seed + SEEDS)
        if options.quick:
            data, recipe, seeds = replace(data, n_train=200), replace(recipe, epochs=2), seeds[:1]
            methods = [shortened(method, epochs=1, rounds=1) for method in methods]
            tasks = [replace(task, n_corrupted=20) for task in tasks[:1]]
        images = data.load(self.bench.device)
        numerics = Numerics.for_inputs(self.bench.device, images.shape)
        for seed in seeds:
            for task in tasks:
                plan = make_plan(data, [task], recipe, methods, [seed], numerics)
                self.queue += [*plan.trainings, *plan.cells]
        self.evaluation = evaluation_epochs(images)
        return {
            "grid": options.grid,
            "data": data.label,
            "images": len(images.train_labels),
            "jobs": len(self.queue),
        }

    def next(self) -> Training | Cell | None:
        """Take the first job that can be carried out now; ``None`` if there is none at present."""
        for job in list(self.queue):
            first = job if isinstance(job, Training) else job.training
            too_long = job.work * self.pace > self.bench.left
            if too_long or self._marked(first.key, "failed"):
                self.queue.remove(job)
                self.not_begun += not self._marked(job.key, "begun")
            elif job is first or self.weights.has(first.key):
                self.queue.remove(job)
                if self._mark(job.key, "begun"):
                    return job
        return None

    def _marked(self, key: str, what: str) -> bool:
        return (self.folder / f"{key}.{what}").exists()

    def _mark(self, key: str, what: str) -> bool:
        """Mark a job; false if another process has."""
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            (self.folder / f"{key}.{what}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def carry_out(self, job: Training | Cell) -> None:
        """Carry ``job`` out and write what came of it."""
        begun = time.monotonic()
        self.bench.attempt(
            "grid", "first model" if isinstance(job, Training) else job.method.name, 0,
            lambda: self._first_model(job) if isinstance(job, Training) else self._cell(job),
        )  # fmt: skip
        if isinstance(job, Training) and not self.weights.has(job.key):
            self._mark(job.key, "failed")
        if job.work >= 1:  # of less work, most is not in proportion to it
            self.pace = max(self.pace, (time.monotonic() - begun) / job.work)

    def _first_model(self, job: Training) -> dict[str, Any]:
        learned = run_training(job, self.weights.folder)
        seconds = float(self.weights.metadata(job.key)["seconds"])
        return {**_place(job), "corruption_learned": learned, "seconds": seconds}

    def _cell(self, job: Cell) -> dict[str, Any]:
        record = run_cell(job, self.weights.folder)
        if record.status != "done":
            return {**_place(job), "error": "failed", "message": record.error}
        kept = (
            "uxh",
            "utility",
            "healed",
            "healed_unknown",
            "asr",
            "seconds",
            "sample_gradients",
            "peak_memory",
        )
        return {
            **_place(job),
            **{name: getattr(record, name) for name in kept},
            "recalibrated": {
                name: record.metrics.get(f"{name}_recalibrated")
                for name in ("uxh", "utility", "healed", "asr")
            },
        }

    def summary(self) -> dict[str, Any]:
        """What all processes have done so far, and what all cells of this first setup of the grid would take."""
        lines = Path(self.bench.options.out).read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if row["part"] == "grid" and "work" in row]
        if not rows:
            return {"cells": 0, "not_begun": self.not_begun}
        hours = (max(row["at"] for row in rows) - min(row["at"] - row["took"] for row in rows)) / 3600
        cells = [row for row in rows if row["what"] != "first model" and "error" not in row]
        grid, recipe = self.grid, self.setup.recipe
        models = {getattr(task, "regularity", None) for task in grid.tasks}
        work = len(grid.seeds) * (
            len(models) * recipe.epochs
            + len(grid.tasks) * sum(m.typical_epochs(recipe) + self.evaluation for m in self.setup.methods)
        )
        return {
            "processes": len({row["process"] for row in rows}),
            "cells": len(cells),
            "not_begun": self.not_begun,
            "hours": round(hours, 4),
            "cells_an_hour": round(len(cells) / hours, 1),
            "grid_cells": len(grid.seeds) * len(grid.tasks) * len(self.setup.methods),
            "grid_hours": round(hours * work / sum(row["work"] for row in rows), 2),
            "grid_model": recipe.model,
        }


def _place(job: Training | Cell) -> dict[str, Any]:
    assert isinstance(job.task, CorruptionTask)
    return {"regularity": regularity_name(job.task.regularity), "seed": job.seed, "work": round(job.work, 3)}


def cells(bench: Bench) -> None:
    made: list[Cells] = []

    def lay_out() -> dict[str, Any]:
        made.append(Cells(bench, Grid.read(bench.options.grid)))
        return made[0].lay_out()

    bench.attempt("grid", "plan", 5, lay_out)
    if not made:
        return
    todo = made[0]
    while todo.queue and bench.left > 0:
        job = todo.next()
        if job is not None:
            todo.carry_out(job)
        elif todo.queue:  # other processes are training the first models that are wanted
            time.sleep(0.2)
    bench.attempt("grid", "summary", 0, todo.summary)


PARTS: dict[str, Callable[[Bench], None]] = {
    "environment": environment, "equality": equality, "speed": speed, "grid": cells,
}  # fmt: skip


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=540, help="begin nothing that would take longer")
    parser.add_argument("--device", default=None, help="by default the accelerator, if there is one")
    parser.add_argument("--data", help="folder of the data sets; by default $EXPUNGE_DATA")
    parser.add_argument("--out", default="accelerator.jsonl", help="a line for each result is appended")
    parser.add_argument("--only", type=_names, default=list(PARTS), help="parts, separated by commas")
    parser.add_argument("--methods", type=_names, default=[], help="only these methods, in this order")
    parser.add_argument("--grid", help="a packaged grid; by default paper, on the CPU digits")
    parser.add_argument("--seed", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--threads", type=int, default=min(4, os.cpu_count() or 1))
    parser.add_argument(
        "--quick", action="store_true", help="next to nothing of everything, to try the script"
    )
    options = parser.parse_args()
    unknown = [name for name in options.only if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r} (known: {', '.join(PARTS)})")
    torch.set_num_threads(options.threads)
    options.device = Numerics.choose(options.device).device
    options.grid = options.grid or ("digits" if options.device == "cpu" or options.quick else "paper")
    bench = Bench(options)
    for name in options.only:
        PARTS[name](bench)


if __name__ == "__main__":
    main()
