"""Find bad examples: from what the user names to what is detected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from expunge.errors import InvalidInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from expunge.detection.out_of_sample import FreshModel
    from expunge.detection.result import Detection
    from expunge.inputs.training_data import TrainingData
    from expunge.training.loop import Progress
    from expunge.training.numerics import Numerics
    from expunge.training.recipe import Recipe


def load_model(
    arch: str, checkpoint: Path | None, data: TrainingData, numerics: Numerics
) -> tuple[nn.Module, TrainingData]:
    """Build the network, with the checkpoint's weights if there is one; the data gets its number of classes.

    Raises:
        InvalidInput: an architecture that does not fit the checkpoint, or a model that cannot read the data.
        StoreError: the checkpoint cannot be read.
    """
    from expunge.inputs.architecture import build_architecture
    from expunge.inputs.checkpoint import read_checkpoint
    from expunge.inputs.checkpoint_weights import load_weights
    from expunge.training.logits import check_logits

    model = build_architecture(arch, shape=data.shape, n_classes=len(data.classes))
    if checkpoint is not None:
        load_weights(model, read_checkpoint(checkpoint))
    numerics.place(model)
    return model, data.with_n_classes(
        check_logits(model, next(data.examples.batches(3)).x, numerics).n_logits
    )


def read_features(model: nn.Module, data: TrainingData, numerics: Numerics) -> Tensor:
    """Return what enters the head of the trained model, float32 (N, D).

    Raises:
        InvalidInput: no linear head, or a model that has not learned this data.
    """
    from expunge.inputs.training_scores import chance
    from expunge.training.features import features
    from expunge.training.loop import accuracy

    right = accuracy(model, data.examples, numerics)
    guess = chance(data.examples.labels, data.examples.n_classes)
    # A model that has learned nothing of this data says nothing about it.
    if right <= guess + 0.1 * (1 - guess):
        raise InvalidInput(
            f"the checkpoint's accuracy on its training data is {right:.1%}, and {guess:.1%} would be chance; check "
            "that it is read in the same way: --normalise, --mean, --std, --size, --classes"
        )
    return features(model, data.examples, numerics)


def wrong_labels(
    arch: str,
    data: TrainingData,
    numerics: Numerics,
    recipe: Recipe,
    folds: int,
    seed: int,
    kept: Path,
    progress: Progress,
) -> Detection:
    """Train one model per fold and compare its predictions with the stored labels.

    Raises:
        InvalidInput: too few examples of a class, or one class only.
        Diverged: a training became NaN.
    """
    from expunge.detection.out_of_sample import out_of_sample
    from expunge.store.weights import WeightStore

    def look(among: Tensor) -> Tensor:
        return out_of_sample(
            _fresh(arch, data),
            data.examples.select(among),
            numerics,
            recipe=recipe,
            folds=folds,
            seed=seed,
            kept=WeightStore(kept),
            key=_key(arch, data),
            progress=progress,
        )

    return _label_errors(data, folds, look)


def _label_errors(data: TrainingData, folds: int, look: Callable[[Tensor], Tensor]) -> Detection:
    """Compare the stored labels with the probabilities that ``look`` returns, in the classes that are large enough."""
    import torch

    from expunge.detection.folds import in_large_classes
    from expunge.detection.label_errors import label_errors
    from expunge.inputs.findings import first_few

    labels = data.examples.labels.cpu()
    among = in_large_classes(labels, folds)
    found = label_errors(labels[among], look(among))
    if bool(among.all()):
        return found
    small = [data.classes[label] for label in torch.unique(labels[~among]).tolist()]
    note = f"classes of fewer than {folds} examples were not searched: {first_few(small, 8)}; choose fewer --folds"
    return found.spread(among, note)


def _fresh(arch: str, data: TrainingData) -> FreshModel:
    from expunge.inputs.architecture import build_architecture
    from expunge.seeding import global_generator

    def make(source: torch.Generator) -> nn.Module:
        with global_generator(source):
            return build_architecture(arch, shape=data.shape, n_classes=len(data.classes))

    return make


def _key(arch: str, data: TrainingData) -> str:
    from expunge.fingerprint import fingerprint
    from expunge.inputs.provenance import code_hash, data_hash, file_hash

    source = Path(arch.partition("?")[0].rpartition(":")[0]).expanduser()
    own = file_hash(source) if source.suffix == ".py" and source.is_file() else ""
    return fingerprint(arch, own, data_hash(data), code_hash())


def wrong_labels_fast(
    features: Tensor, data: TrainingData, folds: int, seed: int, progress: Progress
) -> Detection:
    """Compare the stored labels with what a classifier on the checkpoint's features says.

    Raises:
        InvalidInput: too few examples of a class, or one class only.
    """
    from dataclasses import replace

    from expunge.detection.feature_probabilities import feature_probabilities

    labels = data.examples.labels.cpu()
    found = _label_errors(
        data,
        folds,
        lambda among: feature_probabilities(
            features[among.to(features.device)],
            labels[among],
            len(data.classes),
            folds=folds,
            seed=seed,
            progress=progress,
        ),
    )
    warning = (
        "--fast: features of a model that has memorised a wrong label hide it; without --fast more is found"
    )
    return replace(found, notes=(warning, *found.notes))


def poison(
    chosen: Sequence[str], features: Tensor, data: TrainingData, share: float, seed: int
) -> list[Detection]:
    """Run the chosen detectors of poison."""
    from expunge.detection.poison import activation_clustering, spectral_signatures

    labels, n_classes = data.examples.labels, len(data.classes)
    found = []
    if "activation" in chosen:
        found.append(activation_clustering(features, labels, n_classes, seed=seed))
    if "spectral" in chosen:
        found.append(spectral_signatures(features, labels, n_classes, share=share))
    return found
