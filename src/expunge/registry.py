"""The tables of names: methods, tasks, metrics, models and data sets, loaded only when asked for.

A table maps a name to ``"module:object"``. Nothing is imported until :meth:`Registry.get`, so listing
names and summaries needs no torch. Other packages add names through the entry-point groups
``expunge.methods``, ``expunge.tasks``, ``expunge.metrics``, ``expunge.models`` and ``expunge.datasets``; a path
``"package.module:Object"`` works wherever a name does.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from expunge.errors import InvalidInput, UnknownName, near_miss


@dataclass(frozen=True, eq=False)
class Registry:
    """One table of names."""

    kind: str  # what the names stand for, in the singular ("method"); used in messages
    builtin: Mapping[str, str]  # name -> "module:object", in the order in which they are listed
    group: str  # the entry-point group other packages use
    base: str = ""  # "module:Class" that every entry is a subclass of; empty where entries are functions

    @cached_property
    def targets(self) -> dict[str, str]:
        """Name -> ``"module:object"``: the built-in names first, then those of other packages."""
        found = dict(self.builtin)
        for point in sorted(entry_points(group=self.group), key=lambda point: point.name):
            if point.name in found and found[point.name] != point.value:
                raise InvalidInput(
                    f"{self.kind} name {point.name!r} is taken twice: by {found[point.name]} and by "
                    f"{point.value}; rename one of the entry points in group {self.group!r}"
                )
            found[point.name] = point.value
        return found

    def names(self) -> list[str]:
        """Every name in the table."""
        return list(self.targets)

    def get(self, name: str) -> Any:
        """Import and return what ``name`` (or a ``"module:object"`` path) stands for.

        Raises:
            UnknownName: no such name; the message names the nearest one.
            InvalidInput: a path whose module or object does not exist, or that leads to something else.
        """
        if ":" not in name and name not in self.targets:
            known = self.names()
            raise UnknownName(
                f"unknown {self.kind} {name!r}{near_miss(name, known)} (known: {', '.join(known)})"
            )
        found = _load(name if ":" in name else self.targets[name], self.kind)
        if self.base and not (isinstance(found, type) and issubclass(found, _load(self.base, "base"))):
            raise InvalidInput(
                f"{self.kind} {name!r} is {found!r}, not a subclass of {self.base.replace(':', '.')}"
            )
        return found

    def summary(self, name: str) -> str:
        """First line of the docstring behind ``name``, read from the source without importing it."""
        module, _, attribute = self.targets[name].partition(":")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return ""
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == attribute:
                return (ast.get_docstring(node) or "").partition("\n")[0]
        return ""


def _load(target: str, kind: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InvalidInput(
            f"{kind} path {target!r} cannot be loaded: {error}; expected 'module:Object'"
        ) from error


METHODS = Registry(
    "method",
    {
        "none": "expunge.methods.no_unlearning:NoUnlearning",
        "retrain": "expunge.methods.retrain:Retrain",
        "retrain_corrected": "expunge.methods.retrain_corrected:RetrainCorrected",
        "finetune": "expunge.methods.finetune:FineTune",
        "gradient_ascent": "expunge.methods.gradient_ascent:GradientAscent",
        "npo": "expunge.methods.npo:NPO",
        "natmu": "expunge.methods.natmu:NatMU",
        "amnesiac": "expunge.methods.amnesiac:Amnesiac",
        "salun": "expunge.methods.salun:SalUn",
        "bad_teacher": "expunge.methods.bad_teacher:BadTeacher",
        "scrub": "expunge.methods.scrub:SCRUB",
        "scrub_rewind": "expunge.methods.scrub:SCRUBRewind",
        "neggrad_plus": "expunge.methods.neggrad_plus:NegGradPlus",
        "l1_sparse": "expunge.methods.l1_sparse:L1Sparse",
        "cf_k": "expunge.methods.last_layers:CFk",
        "eu_k": "expunge.methods.last_layers:EUk",
        "unsir": "expunge.methods.unsir:UNSIR",
        "ssd": "expunge.methods.ssd:SSD",
        "lfssd": "expunge.methods.lfssd:LFSSD",
        "potion": "expunge.methods.potion:Potion",
        "fisher_forgetting": "expunge.methods.fisher_forgetting:FisherForgetting",
        "example_tied_dropout": "expunge.methods.example_tied_dropout:ExampleTiedDropout",
        "mnemonic_code": "expunge.methods.mnemonic_code:MnemonicCode",
        "logit_mask": "expunge.methods.logit_mask:LogitMask",
        "sfron": "expunge.methods.sfron:SFRon",
        "delete": "expunge.methods.delete:Delete",
        "lotus": "expunge.methods.lotus:LoTUS",
        "amun": "expunge.methods.amun:AMUN",
        "sap": "expunge.methods.sap:SAP",
        "cuts": "expunge.methods.cuts:CUTS",
        "relearn": "expunge.methods.relearn:Relearn",
        "rem": "expunge.methods.rem:REM",
        "rem_attached": "expunge.methods.rem_attached:AttachedREM",
        "rem_ideal": "expunge.methods.rem:IdealREM",
        "rem_without_redirection": "expunge.methods.rem:REMWithoutRedirection",
        "rem_without_removal": "expunge.methods.rem:REMWithoutRemoval",
        "rem_ascent": "expunge.methods.rem:AscentREM",
    },
    "expunge.methods",
    "expunge.methods.base:Method",
)
TASKS = Registry(
    "task",
    {
        "corruption": "expunge.tasks.corruption:CorruptionTask",
        "classes": "expunge.tasks.forgetting:ForgetClasses",
        "subclass": "expunge.tasks.forgetting:ForgetSubclass",
        "random": "expunge.tasks.forgetting:ForgetRandom",
        "hardest": "expunge.tasks.forgetting:ForgetHardest",
        "indices": "expunge.tasks.forgetting:ForgetIndices",
    },
    "expunge.tasks",
    "expunge.tasks.base:Task",
)
MODELS = Registry(
    "model",
    {
        "resnet9": "expunge.models.resnet9:ResNet9",
        "convnet": "expunge.models.convnet:ConvNet",
        "vit": "expunge.models.vit:ViT",
        "mlp": "expunge.models.mlp:MLP",
    },
    "expunge.models",
)
DATASETS = Registry(
    "data set",
    {
        "digits": "expunge.data.digits:load_digits",
        "mnist": "expunge.data.idx:load_mnist",
        "fashion_mnist": "expunge.data.idx:load_fashion_mnist",
        "cifar10": "expunge.data.cifar:load_cifar10",
        "cifar100": "expunge.data.cifar:load_cifar100",
        "cifar20": "expunge.data.cifar:load_cifar20",
    },
    "expunge.datasets",
)
METRICS = Registry(
    "metric",
    {
        "healed": "expunge.metrics.corruption:Healed",
        "utility": "expunge.metrics.corruption:Utility",
        "utility_healed": "expunge.metrics.corruption:UtilityHealed",
        "attack_success": "expunge.metrics.corruption:AttackSuccess",
        "per_class": "expunge.metrics.accuracies:PerClassAccuracy",
        "accuracies": "expunge.metrics.accuracies:Accuracies",
        "entropy_attack": "expunge.metrics.fitted_attacks:EntropyAttack",
        "class_mean_probe": "expunge.metrics.probes:ClassMeanProbe",
        "loss_attack": "expunge.metrics.attacks:LossAttack",
        "confidence_attack": "expunge.metrics.attacks:ConfidenceAttack",
        "entropy_attack_auc": "expunge.metrics.attacks:EntropyAttackAUC",
        "modified_entropy_attack": "expunge.metrics.attacks:ModifiedEntropyAttack",
        "logistic_attack": "expunge.metrics.fitted_attacks:LogisticAttack",
        "svc_efficacy": "expunge.metrics.fitted_attacks:SVCEfficacy",
        "accuracy_gaps": "expunge.metrics.composites:AccuracyGaps",
        "tow": "expunge.metrics.composites:ToW",
        "tow_mia": "expunge.metrics.composites:ToWMIA",
        "retention": "expunge.metrics.composites:Retention",
        "aus": "expunge.metrics.composites:AUS",
        "nomus": "expunge.metrics.composites:NoMUS",
        "activation_distance": "expunge.metrics.compared_predictions:ActivationDistance",
        "js_divergence": "expunge.metrics.compared_predictions:JSDivergence",
        "zrf": "expunge.metrics.compared_predictions:ZRF",
        "completeness": "expunge.metrics.compared_predictions:Completeness",
        "weight_distance": "expunge.metrics.weight_distance:WeightDistance",
        "kl_to_retrained": "expunge.metrics.compared_predictions:KLToRetrained",
        "rf_jsd": "expunge.metrics.compared_predictions:RFJSD",
        "linear_probe": "expunge.metrics.probes:LinearProbe",
        "idi": "expunge.metrics.idi:IDI",
        "relearn_time": "expunge.metrics.relearn:RelearnTime",
        "anamnesis_index": "expunge.metrics.relearn:AnamnesisIndex",
        "interclass_error": "expunge.metrics.interclass_confusion:InterclassError",
        "fgt_error": "expunge.metrics.interclass_confusion:FgtError",
        "robust_accuracy": "expunge.metrics.corruption:RobustAccuracy",
        "der": "expunge.metrics.corruption:DER",
        "corrected_accuracy": "expunge.metrics.corruption:Corrective",
        "ece": "expunge.metrics.calibration:ECE",
        "nll": "expunge.metrics.calibration:NLL",
        "brier": "expunge.metrics.calibration:Brier",
        "class_damage": "expunge.metrics.class_damage:ClassDamage",
        "gaussian_score": "expunge.metrics.gaussian_score:GaussianScore",
        "residual_knowledge": "expunge.metrics.residual_knowledge:ResidualKnowledge",
        "recalibrated": "expunge.metrics.recalibrated:Recalibrated",
        "ulira": "expunge.metrics.of_populations:ULiRA",
        "klom": "expunge.metrics.of_populations:KLOM",
        "forgetting_quality": "expunge.metrics.of_populations:ForgettingQuality",
        "ruli": "expunge.metrics.of_populations:RULI",
    },
    "expunge.metrics",
    "expunge.metrics.base:Metric",
)
TABLES: dict[str, Registry] = {
    "methods": METHODS,
    "tasks": TASKS,
    "models": MODELS,
    "data": DATASETS,
    "metrics": METRICS,
}
