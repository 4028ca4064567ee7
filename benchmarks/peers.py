"""Other unlearning libraries beside this one, by their own code, on the digits map.

Usage: python benchmarks/peers.py [--env FOLDER] [--discovery 0.1,0.5,1.0] [--seeds 7] [--out peers.jsonl] [--table]

Makes an environment of its own in FOLDER: torchunlearn 0.1.0 and erasus 0.2.0 without their dependencies, on top of the
packages of the Python that runs this. What they offer for classifiers is given the same damaged models as our version
of the same method: at their defaults, and with the learning rate and the number of sample gradients of ours ("equal").
Every run is a line of JSON, and is skipped if its line is there. ``--table`` prints the means over the cells.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from expunge.data.digits import load_digits
from expunge.evaluation.evaluate import evaluate
from expunge.methods.base import Request
from expunge.seeding import generator, global_generator
from expunge.sweep.preset import Preset
from expunge.tasks.base import Problem
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe

PEERS = {"torchunlearn": "0.1.0", "erasus": "0.2.0"}
ERASUS = {
    "gradient_ascent": "gradient_ascent",
    "ssd": "ssd",
    "saliency_unlearning": "salun",
    "amnesiac": "amnesiac",
    "scrub": "scrub",
    "negative_gradient": "neggrad_plus",
    "fisher_forgetting": "fisher_forgetting",
}
"""Strategy of erasus -> our method of the same name or source."""
FLAGSHIPS = ("none", "rem", "relearn")
FIGURES = ("uxh", "healed", "utility", "asr")


def environment(folder: Path) -> Path:
    """Return the Python of an environment that has the peers, made in ``folder`` if it is not there."""
    python = folder / "bin" / "python"
    if python.exists():
        return python
    venv.create(folder, with_pip=False)
    packages = next((folder / "lib").glob("python*/site-packages"))
    (packages / "host.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    wanted = [f"{name}=={version}" for name, version in PEERS.items()]
    # Without dependencies: theirs would bring another torch along.
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(packages),
        *wanted,
    ]
    subprocess.run(command, check=True)
    return python


def torchunlearn_lacks() -> str:
    """Why no method of torchunlearn can be run; empty if they can."""
    found = importlib.metadata.files("torchunlearn") or []
    missing = [
        name
        for name in ("trainers", "nontrainers")
        if not any(f"unlearn/{name}/" in str(file) for file in found)
    ]
    return f"its wheel holds no files of unlearn/{' and unlearn/'.join(missing)}" if missing else ""


def damaged(
    preset: Preset, regularity: float, discovery: float, seed: int
) -> tuple[Problem, Recipe, nn.Module]:
    """The problem, the recipe and the model that was trained on it."""
    problem = preset.make_task(regularity=regularity, discovery=discovery, seed=seed).build(load_digits())
    recipe, numerics = preset.make_recipe(), Numerics.choose("cpu", 8)
    model = recipe.build(problem.shape, problem.n_classes, generator(seed, "initialisation"))
    recipe.train(model, problem.split.train, seed, numerics, Meter())
    return problem, recipe, numerics.place(model)


def loader(examples: Any, batch_size: int, seed: int) -> DataLoader[Any]:
    """Shuffled batches of inputs and given labels."""
    whole = next(examples.batches(len(examples)))
    order = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(whole.x, whole.y), batch_size=batch_size, shuffle=True, generator=order)


def erasus(name: str, model: nn.Module, problem: Problem, seed: int, **equal: Any) -> tuple[nn.Module, Meter]:
    """Run a strategy of erasus by its own unlearner."""
    from erasus.unlearners.erasus_unlearner import ErasusUnlearner

    parts = [loader(part, 32, seed) for part in (problem.split.forget, problem.split.retain)]
    epochs = equal.pop("epochs", None)
    unlearner = ErasusUnlearner(model, strategy=name, device="cpu", strategy_kwargs=equal)
    seen = [0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen[0] += len(inputs[0]) if torch.is_grad_enabled() else 0

    handle = unlearner.model.register_forward_pre_hook(count)
    meter = Meter("cpu")
    with meter, global_generator(generator(seed, "peer")):
        unlearner.fit(*parts, **({} if epochs is None else {"epochs": epochs}))
    handle.remove()
    meter.count(seen[0])
    return unlearner.model.eval(), meter


def row(model: nn.Module, problem: Problem, recipe: Recipe, meter: Meter) -> dict[str, Any]:
    """What the model does, in percent, and what it took."""
    found = evaluate(model, problem, Numerics.choose("cpu", 8), augment=recipe.augment)
    shares = {name: found[name] for name in FIGURES} | {
        f"{name}_recalibrated": found["metrics"].get(f"{name}_recalibrated") for name in FIGURES
    }
    return {
        **{name: None if share is None else round(100 * share, 2) for name, share in shares.items()},
        "seconds": round(meter.seconds, 2),
        "megabytes": round((meter.peak_memory or 0) / 1e6, 1),
        "gradients": meter.sample_gradients,
    }


def runs(
    preset: Preset, problem: Problem, recipe: Recipe, model: nn.Module, seed: int
) -> Iterator[tuple[str, str, str, Any]]:
    """Yield library, method, mode, and a function that makes the row; theirs follows ours, whose budget it takes."""
    numerics, spent = Numerics.choose("cpu", 8), {}

    def ours(name: str) -> dict[str, Any]:
        method = preset.make_method(name)
        outcome = method(model, Request(problem.split, seed=seed, numerics=numerics, recipe=recipe))
        found = row(outcome.model, problem, recipe, outcome.cost)
        spent[name] = (getattr(method, "lr", None), found["gradients"])
        return found

    def theirs(name: str, **equal: Any) -> dict[str, Any]:
        result, meter = erasus(name, copy.deepcopy(model), problem, seed, **equal)
        return row(result, problem, recipe, meter)

    def alike(name: str) -> dict[str, Any]:
        if ERASUS[name] not in spent:
            ours(ERASUS[name])
        lr, gradients = spent[ERASUS[name]]
        once = max(1, erasus(name, copy.deepcopy(model), problem, seed, epochs=1)[1].sample_gradients)
        epochs = max(1, round(gradients / once))
        return {**theirs(name, epochs=epochs, **({} if lr is None else {"lr": lr})), "epochs": epochs}

    for name in FLAGSHIPS:
        yield "expunge", name, "preset", lambda name=name: ours(name)
    for name, own in ERASUS.items():
        yield "erasus", name, "defaults", lambda name=name: theirs(name)
        yield "expunge", own, "preset", lambda own=own: ours(own)
        yield "erasus", name, "equal", lambda name=name: alike(name)


def table(out: Path) -> str:
    """Means over the cells as Markdown, a row for each library, method and mode."""
    found: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in out.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "uxh" in entry:
            found.setdefault((entry["library"], entry["method"], entry["mode"]), []).append(entry)
    names = (*FIGURES, "uxh_recalibrated", "asr_recalibrated", "seconds", "megabytes", "gradients")
    lines = [
        "| library | method | mode | cells | U x H | healed | utility | ASR | U x H recal. | ASR recal. | s | MB "
        "| gradients |",
        "|---|---|---|" + "---:|" * (1 + len(names)),
    ]
    for key, entries in found.items():
        cells = []
        for name in names:
            known = [entry[name] for entry in entries if entry[name] is not None]
            cells.append(
                "-" if not known else f"{sum(known) / len(known):.{0 if name == 'gradients' else 1}f}"
            )
        lines.append(f"| {' | '.join(key)} | {len(entries)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--env", type=Path, default=Path(".peers"))
    parser.add_argument("--regularity", default="1.0,0.5,0.0")
    parser.add_argument("--discovery", default="0.1,0.5,1.0")
    parser.add_argument("--seeds", default="7")
    parser.add_argument("--out", type=Path, default=Path("peers.jsonl"))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    if options.table:
        print(table(options.out))
        return
    if importlib.util.find_spec("erasus") is None:
        python = environment(options.env.resolve())
        os.execv(python, [str(python), *sys.argv])
    done = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    known = {tuple(json.loads(line)[part] for part in ("cell", "library", "method", "mode")) for line in done}
    lacks = torchunlearn_lacks()
    if lacks:
        print(f"torchunlearn {PEERS['torchunlearn']}: {lacks}; none of its methods can be imported")
    preset = Preset.of("digits")
    for seed in map(int, options.seeds.split(",")):
        for discovery in map(float, options.discovery.split(",")):
            for regularity in map(float, options.regularity.split(",")):
                cell = f"regularity {regularity}, discovery {discovery}, seed {seed}"
                problem, recipe, model = damaged(preset, regularity, discovery, seed)
                for library, method, mode, make in runs(preset, problem, recipe, model, seed):
                    if (cell, library, method, mode) in known:
                        continue
                    entry = {"cell": cell, "library": library, "method": method, "mode": mode}
                    try:
                        entry |= make()
                    except Exception as error:  # another library may raise anything; the others go on
                        entry["error"] = f"{type(error).__name__}: {error}"
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(entry) + "\n")
                    print(entry, flush=True)


if __name__ == "__main__":
    main()
