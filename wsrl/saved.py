"""Open whatever ``wsrl`` wrote, by what is in its folder."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wsrl.errors import UserError
from wsrl.fields.saving import CONFIG_FILE
from wsrl.store.schema import MANIFEST

PIPELINE_FILE = "model_index.json"
KINDS = (
    "a weight store or a shard of one, a base field, an encoder, classifier, regressor, autoencoder or diffusion model"
)


def load(path: str | os.PathLike) -> Any:
    """Open a store, a base field, or a model over weights.

    Args:
        path: A folder that ``wsrl`` wrote, the folder of a training run, which holds its model, or one shard.

    Returns:
        A ``WeightStore`` (of an unfinished build: with the shards that are finished), ``BaseField``, ``WeightEncoder``,
        ``WeightClassifier``, ``WeightRegressor``, ``WeightAutoencoder`` or ``WeightDiffusionPipeline``.

    Raises:
        UserError: There is nothing of this kind, or it is damaged.
    """
    path = Path(path)
    for folder in (path, path / "model"):
        opener = _opener(folder)
        if opener is not None:
            return opener(folder)
    raise UserError(f"{path} holds nothing that wsrl wrote", allowed=KINDS, do="check the path")


def _opener(path: Path) -> Callable[[Path], Any] | None:
    """What opens a path; None where nothing does."""
    if path.is_file() or (path / MANIFEST).is_file():
        from wsrl.store import WeightStore

        return lambda folder: WeightStore.open(folder, partial=True)
    if (path / PIPELINE_FILE).is_file():
        from wsrl.diffusion.pipeline import load_pipeline

        return load_pipeline
    config = _config(path)
    return None if config is None else _model_opener(config)


def _model_opener(config: dict) -> Callable[[Path], Any] | None:
    """What opens a model of a configuration; None for one of another library."""
    from wsrl.encoders.autoencoder import WeightAutoencoder, open_autoencoder
    from wsrl.encoders.models import WeightClassifier, WeightRegressor
    from wsrl.encoders.registry import load_encoder
    from wsrl.fields.modulated_base import BaseField

    if config.get("_class_name") == WeightAutoencoder.__name__:
        return open_autoencoder
    if {"field", "in_features", "out_features"} <= set(config):
        return BaseField.from_pretrained
    models = {model.__name__: model.from_pretrained for model in (WeightClassifier, WeightRegressor)}
    return {"WeightEncoder": load_encoder, **models}.get(config.get("model"))


def _config(folder: Path) -> dict | None:
    """The configuration of the model in a folder; None where there is none."""
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config if isinstance(config, dict) else None
