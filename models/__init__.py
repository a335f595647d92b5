"""Layers, models, self-supervision, training, evaluation and reports."""

from typing import Any

from preprocessing import lazy_name

_NAMES = {
    "configure": "models.config.run_config:resolve",
    "build_model": "models.core.factory",
    "compile_model": "models.core.factory",
    "train_run": "models.train:train",
    "evaluate_run": "models.evaluation.scoring:evaluate",
    "load_model": "models.core.run_directory",
    "save_run": "models.training.fitted",
}


def __getattr__(name: str) -> Any:
    return lazy_name(__name__, _NAMES, name)


def __dir__() -> list[str]:
    return [*globals(), *_NAMES]
