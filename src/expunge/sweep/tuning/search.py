"""The sampler that proposes settings."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from expunge.methods.base import Search
from expunge.optional import load_extra


def load_optuna() -> ModuleType:
    """Return the module.

    Raises:
        InvalidInput: it is not installed.
    """
    module: ModuleType = load_extra("optuna", "optuna", "tune", "tuning")
    return module


class Study:
    """Optuna's TPE behind ask and tell; the first trial is told without having been asked for."""

    def __init__(self, optuna: ModuleType, space: Mapping[str, Search], seed: int) -> None:
        self._optuna, self._space = optuna, space
        made = optuna.distributions
        self._distributions: dict[str, Any] = {}
        for name, search in space.items():
            if isinstance(search.low, int):
                chosen = made.IntDistribution(search.low, int(search.high), log=search.log)
            else:
                chosen = made.FloatDistribution(search.low, search.high, log=search.log)
            self._distributions[name] = chosen
        verbosity = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # it announces every study otherwise
        try:
            sampler = optuna.samplers.TPESampler(seed=seed)
            self._study = optuna.create_study(direction="maximize", sampler=sampler)
        finally:
            optuna.logging.set_verbosity(verbosity)

    def ask(self) -> Any:
        """Return a trial with a value for every searched setting."""
        return self._study.ask(self._distributions)

    @staticmethod
    def settings(trial: Any) -> dict[str, Any]:
        """Return what a trial proposes."""
        return dict(trial.params)

    def tell(self, trial: Any, settings: Mapping[str, Any], score: float) -> None:
        """Let the sampler know a score; ``None`` stands for the trial of the untuned settings."""
        if trial is not None:
            self._study.tell(trial, score)
            return
        numeric = all(isinstance(value, int | float) for value in settings.values())
        inside = numeric and all(
            search.low <= settings[name] <= search.high for name, search in self._space.items()
        )
        if inside:  # the sampler knows nothing outside its ranges
            frozen = self._optuna.trial.create_trial(
                params=dict(settings), distributions=self._distributions, value=score
            )
            self._study.add_trial(frozen)
