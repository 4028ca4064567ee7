"""Images per second of training and of REM's phases, ours beside a plain float32 loop, in one run.

Usage: python benchmarks/training_speed.py [--batch 512] [--width 64] [--steps 4] [--threads N]
       [--discovered 0.02] [--profile]

The plain loop is what a first implementation does: the full-width network, float32, contiguous memory, the
unused half of the channels multiplied by zeros. Ours computes the base path only, in the precision and memory
format that Numerics.choose() picks. Every pair runs alternately and the median is reported, so that a busy
machine slows both. --profile tells, in place of that, which operations a training step spends its time in.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from expunge.capacity.route import Router
from expunge.data.examples import Batch
from expunge.methods.redirection import RepairAndRedirect
from expunge.methods.rem import REM
from expunge.methods.removal import CachedLoss, RaiseLoss
from expunge.models.resnet9 import ResNet9
from expunge.seeding import global_generator
from expunge.training.cost import Meter
from expunge.training.loop import Loss, Objective, cross_entropy, fit
from expunge.training.numerics import Numerics
from expunge.training.recipe import Optimiser

PLAIN = Numerics(channels_last=False)


class HalfMasked:
    """A route that closes every spare unit: the published way of training half a network."""

    def __call__(self, x: torch.Tensor, base: int, site: int, dim: int = 1) -> torch.Tensor:
        mask = torch.ones(x.shape[dim])
        mask[base:] = 0
        return x * mask.view([-1 if i == dim else 1 for i in range(x.ndim)])


def masked_cross_entropy(model: nn.Module, batch: Batch) -> Loss:
    return Loss(F.cross_entropy(model(batch.x, HalfMasked()).float(), batch.y), len(batch))


def network(width: int, wide: bool) -> nn.Module:
    with global_generator(torch.Generator().manual_seed(0)):
        return ResNet9(3, 32, 10, width=width, capacity=0.5, spare=1.0 if wide else 0.0)


def stepper(model: nn.Module, objective: Objective, numerics: Numerics, batch: Batch) -> Callable[[], float]:
    """Return a function that makes one training step and returns its seconds."""
    numerics.place(model)
    optimizer = Optimiser(lr=0.01).over(model)

    def step() -> float:
        started = time.perf_counter()
        fit(model, [[batch]], objective, optimizer, numerics, Meter(numerics.device))
        if numerics.device.startswith("cuda"):
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return step


KINDS = {
    "convolution": ("convolution",),
    "batch normalisation": ("batch_norm",),
    "CELU": ("elu",),
    "pooling": ("pool",),
    "optimiser": ("Optimizer", "foreach", "addcmul", "lerp"),
}


def profiled(width: int, batch: Batch, numerics: Numerics, steps: int) -> None:
    """Print the share of each kind of operation in a training step, and the images a second."""
    step = stepper(network(width, False), cross_entropy, numerics, batch)
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        for _ in range(steps):
            step()
    spent = {event.key: event.self_cpu_time_total for event in found.key_averages()}
    shares = dict.fromkeys((*KINDS, "all else"), 0.0)
    for key, time_ in spent.items():
        kind = next((kind for kind, words in KINDS.items() if any(w in key for w in words)), "all else")
        shares[kind] += time_ / sum(spent.values())
    for kind, share in shares.items():
        print(f"{share:9.1%}  {kind}")
    taken = statistics.median(step() for _ in range(steps))
    print(f"{len(batch) / taken:9.1f} images/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--discovered", type=float, default=0.02, help="share of the batch in the forget set")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    ours = Numerics.choose()
    size, device = options.batch, ours.device
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn(size, 3, 32, 32, generator=source), torch.randint(0, 10, (size,), generator=source)
    batch = Batch(x.to(device), y.to(device), torch.arange(size, device=device))
    if options.profile:
        profiled(options.width, batch, ours, options.steps)
        return
    cpu_batch = Batch(x, y, torch.arange(size))
    found = torch.zeros(size, dtype=torch.bool, device=device)
    found[: max(1, round(options.discovered * size))] = True
    reference = CachedLoss(torch.zeros(size, device=device))
    removal = RaiseLoss("npo", reference)
    redirect = RepairAndRedirect(REM(), found, Router(), reference, removal)
    official = RepairAndRedirect(
        REM(compat="official"),
        found.cpu(),
        Router(),
        CachedLoss(torch.zeros(size)),
        RaiseLoss("npo", CachedLoss(torch.zeros(size)), batch_statistics=True),
    )

    width = options.width
    rows: dict[str, Callable[[], float]] = {
        "plain float32, contiguous, full width masked": stepper(
            network(width, True), masked_cross_entropy, PLAIN, cpu_batch
        ),
        "plain float32, contiguous, base path": stepper(
            network(width, False), cross_entropy, PLAIN, cpu_batch
        ),
        f"ours: {ours.dtype}, channels last, base path": stepper(
            network(width, False), cross_entropy, ours, batch
        ),
        f"ours: {ours.dtype}, channels last, full width masked": stepper(
            network(width, True), masked_cross_entropy, ours, batch
        ),
        "ours: flush step": stepper(network(width, True), removal, ours, batch),
        "ours: redirect step": stepper(network(width, True), redirect, ours, batch),
        "plain: redirect step with a base pass on the whole batch": stepper(
            network(width, True), official, PLAIN, cpu_batch
        ),
    }
    seconds: dict[str, list[float]] = {name: [] for name in rows}
    for number in range(options.steps + 1):
        for name, step in rows.items():
            taken = step()
            if number:  # the first round warms up
                seconds[name].append(taken)
    print(
        f"ResNet-9 width {width}, batch {size}, {options.threads} threads, {ours}, torch {torch.__version__}"
    )
    rate = {name: size / statistics.median(values) for name, values in seconds.items()}
    for name, value in rate.items():
        print(f"{value:9.1f} images/s  {name}")
    names = list(rate)
    print(f"{rate[names[2]] / rate[names[0]]:9.2f} x  ours / plain masked loop (training the same function)")
    print(f"{rate[names[2]] / rate[names[1]]:9.2f} x  ours / plain loop, same network")
    print(
        f"{rate[names[3]] / rate[names[5]]:9.2f}    cost of a redirect step, in full-width training steps (limit 1.6)"
    )
    print(f"{rate[names[0]] / rate[names[6]]:9.2f}    the same with the base pass on the whole batch, plain")
    print(f"{rate[names[2]] / rate[names[5]]:9.2f}    cost of a redirect step, in base-path training steps")


if __name__ == "__main__":
    main()
