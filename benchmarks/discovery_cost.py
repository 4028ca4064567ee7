"""Memory and time of REM with discovery beside fine-tuning and retraining, in one run.

Usage: python benchmarks/discovery_cost.py [--images 512] [--width 32] [--batch 64] [--repeats 3] [--device cpu]

Two passes of each method over images of CIFAR's shape through a ResNet-9; 2 % of them are in the forget set. Memory is
that of tensors, the most held at once above what was there before: on the CPU summed from the profiler's record of
every allocation, since the resident set of a process hides what it had reserved already. Seconds are medians of runs
without the profiler, alternating, for a pass.
"""

from __future__ import annotations

import argparse
import statistics

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from expunge.api import load_method
from expunge.data.joined import in_memory
from expunge.methods.base import Method, Request
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser, Recipe

PASSES = 2
NAMES = ("finetune", "retrain", "rem", "rem_attached", "rem_discovery")


def peak(method: Method, model: nn.Module, request: Request) -> int:
    """Return the most bytes of tensors held at once while the method works, above those at its start."""
    if request.numerics.device.startswith("cuda"):
        return int(method(model, request).cost.peak_memory or 0)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        method(model, request)
    events = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default=None)
    options = parser.parse_args()

    numerics, draw = Numerics.choose(options.device, 32), torch.Generator().manual_seed(0)
    x = torch.randn(options.images, 3, 32, 32, generator=draw)
    train = in_memory(x, torch.randint(0, 10, (options.images,), generator=draw), 10)
    split = Split(train, torch.arange(max(2, options.images // 50)))
    recipe = Recipe(
        model="resnet9",
        epochs=PASSES,
        batch_size=options.batch,
        augment=False,
        optimiser=Optimiser(lr=0.01),
        model_settings={"width": options.width, "split_hidden": True},
    )
    model = recipe.build((3, 32, 32), 10, torch.Generator().manual_seed(0))
    common = {"batch_size": options.batch, "augment": False, "lr": 0.01}
    own = {
        "finetune": {"epochs": PASSES},
        "rem": {"rounds": PASSES},
        "rem_attached": {"rounds": PASSES, "least_steps": 0},
        "rem_discovery": {"rounds": PASSES, "least_steps": 0, "first_naming": 1},
    }
    methods = {name: load_method(name, **({} if name == "retrain" else common | own[name])) for name in NAMES}

    def request() -> Request:
        return Request(split, seed=0, numerics=numerics, recipe=recipe)

    seconds: dict[str, list[float]] = {name: [] for name in NAMES}
    gradients: dict[str, int] = {}
    for number in range(options.repeats + 1):
        for name, method in methods.items():
            cost: Meter = method(model, request()).cost
            gradients[name] = cost.sample_gradients
            if number:  # the first round warms up
                seconds[name].append(cost.seconds)
    most = {name: peak(method, model, request()) for name, method in methods.items()}

    print(
        f"ResNet-9 width {options.width}, {options.images} images, batch {options.batch}, {PASSES} passes, {numerics}, "
        f"torch {torch.__version__}\n"
    )
    print(
        "| method | seconds a pass | x fine-tuning | gradients an image, a pass | peak MB | x fine-tuning |"
    )
    print("|---|---|---|---|---|---|")
    usual = statistics.median(seconds["finetune"])
    for name in NAMES:
        taken = statistics.median(seconds[name])
        print(
            f"| {name} | {taken / PASSES:.2f} | {taken / usual:.2f} "
            f"| {gradients[name] / options.images / PASSES:.2f} "
            f"| {most[name] / 1e6:.0f} | {most[name] / most['finetune']:.2f} |"
        )


if __name__ == "__main__":
    main()
