"""The stored fields that a person names for a model: the store, its rows, and their weights.

Letters: N fields.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.errors import UserError
from wsrl.evaluation.features import weights_of_rows
from wsrl.store import WeightStore

OTHERS = 1000
"""Most stored fields that an interpolation is compared with."""


def open_fields(pipeline: WeightDiffusionPipeline, model: str, store: str | None) -> tuple[str, WeightStore]:
    """Path and store of the fields, which have to be the model's kind.

    Args:
        pipeline: The model.
        model: Its folder, whose record says what it was trained on.
        store: The store; None for the one that the model was trained on.

    Raises:
        UserError: It is not known, no store, or one of other fields.
    """
    path = store or trained_on(Path(model))
    if path is None:
        raise UserError(
            f"{model} does not say which store it was trained on",
            allowed="--store STORE",
            do="pass the store of the fields that the ids are of",
        )
    opened = WeightStore.open(path)
    if not same_kind(pipeline, opened):
        opened.close()
        raise UserError(
            f"the fields of the store {path} are of another kind than those of the model",
            allowed="a store of the same representation and base field",
            do="pass the store that the model was trained on as --store",
        )
    return path, opened


def same_kind(pipeline: WeightDiffusionPipeline, store: WeightStore) -> bool:
    """Whether the weights of a store mean to the model's decoder what they mean to the store."""
    if store.layout != pipeline.space.layout:
        return False
    mine, theirs = pipeline.decoder.representation, store.representation
    if json.dumps(mine.to_dict(), sort_keys=True) != json.dumps(theirs.to_dict(), sort_keys=True):
        return False
    return mine.base is None or mine.base.sha256() == theirs.base.sha256()


def trained_on(model: Path) -> str | None:
    """The store that the record of a training run names, if it is still there."""
    for folder in (model, model.parent):
        try:
            store = json.loads((folder / "run.json").read_text())["config"]["data"]["store"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(store, str) and Path(store).is_dir():
            return store
    return None


def row_of(store: WeightStore, key: str) -> int:
    """The row of an id, or of a number that is no id."""
    try:
        return store.row(key)
    except UserError:
        if not (key.isdigit() and int(key) < len(store)):
            raise
    return int(key)


def read_rows(store: WeightStore, rows: Sequence[int], device) -> dict[str, Tensor]:
    """Weights ``(N, *shape)`` of rows on a device; empty where there are none."""
    return {name: tensor.to(device) for name, tensor in weights_of_rows(store, rows).items()}


def spread_rows(store: WeightStore, without: Collection[int]) -> list[int]:
    """Rows over the whole store but some, at most ``OTHERS``."""
    rows = [row for row in range(len(store)) if row not in without]
    return rows[:: max(1, -(-len(rows) // OTHERS))]
