"""Fields edited by their weights: networks that dilate a picture by changing the numbers of its field.

    python -m pipelines.weight_editing --config configs/fashion_mnist/weight_editing.yaml

One zoo of fields, one training of every editor on it. Its loss, and the score on the test fields, is the mean squared
error of what the edited field shows, beside the dilated picture; `unchanged` leaves the field as it is.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.edited_pictures import draw_edits
from pipelines.experiment import FieldExperiment, fingerprint, main
from wsrl.cli.parser import show_progress
from wsrl.encoders.editors import WeightEditor, build_editor
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.fields import RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.signals.fidelity import psnr
from wsrl.signals.signal import grid_coords
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.training.editor import EditExamples, EditTrainingConfig, dilate, rendered, train_editor

READ_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True)
class EditorRow:
    """One editor and its training.

    Attributes:
        kind: ``unf`` or ``mlp``.
        options: Options of the kind by name.
        training: How it is trained.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    training: EditTrainingConfig = EditTrainingConfig()


@dataclass(frozen=True, kw_only=True)
class WeightEditingConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        representation: What the weights are.
        fit: How fields are fitted.
        store: Folder of the fields; built where it is missing.
        num_train: Training fields that are used, the first ones; None for all.
        num_test: Test fields that are used, the first ones; None for all.
        size: Side of the square of the dilation, in pixels.
        editors: Rows by name.
        num_shown: Pictures on the sheet.
        picture: File of the sheet.
    """

    representation: RepresentationConfig = RepresentationConfig(kind="mlp", start="random")
    fit: FitConfig = FitConfig()
    store: str = "runs/weight_editing/fields"
    num_train: int | None = None
    num_test: int | None = None
    size: int = 3
    editors: dict[str, EditorRow] = field(default_factory=dict)
    num_shown: int = 8
    picture: str | None = None
    out: str = "runs/weight_editing"


def run(config: WeightEditingConfig) -> dict[str, float]:
    """Build the zoo, train every editor, draw some test fields; parts that an earlier run finished are kept."""
    source = config.open()
    config.build("zoo", config.representation, config.fit, source=source, folder=Path(config.store))
    with WeightStore.open(config.store) as store:
        train = examples(store, source, "train", config.num_train, config.size)
        test = examples(store, source, "test", config.num_test, config.size)
        layout, representation = store.layout, store.representation
    shown = {"unchanged": rendered(representation, test)}
    results = {"run.num_train": len(train), "run.num_test": len(test), **scores("unchanged", shown["unchanged"], test)}
    statistics = WeightStatistics.from_batches(layout, [train.weights])
    for name, row in config.editors.items():
        editor = trained(name, row, statistics, representation, train, config)
        shown[name] = rendered(representation, test, editor)
        results |= scores(name, shown[name], test)
        results[f"{name}.gain"] = results["unchanged.mse"] / results[f"{name}.mse"]
        results[f"{name}.parameters"] = editor.num_parameters
        results[f"{name}.equivariance_error"] = equivariance_error(editor, test.weights)
        print(json.dumps({k: v for k, v in results.items() if k.startswith(name)}), file=sys.stderr, flush=True)
    draw_edits(shown, test.targets, source.form.grid, config.num_shown, Path(config.out), config.picture)
    return results


def examples(store: WeightStore, source: Source, split: str, num: int | None, size: int) -> EditExamples:
    """The first fields of a split with the dilated pictures that they were fitted to.

    Args:
        store: The fields.
        source: Their pictures.
        split: ``train`` or ``test``.
        num: How many; None for all.
        size: Side of the square of the dilation, in pixels.
    """
    rows = np.flatnonzero(store.splits() == split)[:num]
    ids, indices = store.ids, store.indices
    assert all(source.ids[indices[row]] == ids[row] for row in rows), "the store was built from this source"
    pictures = torch.stack([source[int(indices[row])].values for row in rows])  # (N, P, C)
    parts = []
    for batch in store.batches(READ_AT_ONCE, split=split):
        parts.append(batch.weights)
        if len(parts) * READ_AT_ONCE >= len(rows):
            break
    weights = {name: torch.cat([part[name] for part in parts])[: len(rows)] for name in parts[0]}
    return EditExamples(weights, grid_coords(source.form.grid), dilate(pictures, source.form.grid, size))


def trained(
    name: str, row: EditorRow, statistics: WeightStatistics, representation, train: EditExamples, config
) -> WeightEditor:
    """An editor after its training; a finished one of the same options and fields is taken up."""
    plan = {"row": asdict(row), "store": config.store, "num_train": len(train), "size": config.size}
    folder = Path(config.out) / f"{name}-{fingerprint(plan)}"
    there = (folder / "config.json").exists()
    with config.parts.timed(f"editors.{name}", there=there):
        if not there:
            editor = build_editor(row.kind, row.options, statistics)
            train_editor(editor, representation, train, row.training, folder, show_progress).save_pretrained(folder)
    return WeightEditor.from_pretrained(folder)


def scores(name: str, values: Tensor, test: EditExamples) -> dict[str, float]:
    """Mean squared error and PSNR (dB) of pictures ``(N, P, C)`` beside their targets, means over fields."""
    return {
        f"{name}.mse": float((values - test.targets).square().mean()),
        f"{name}.psnr": float(psnr(values, test.targets, (0.0, 1.0)).mean()),
    }


@torch.no_grad()
def equivariance_error(editor: WeightEditor, weights: dict[str, Tensor]) -> float:
    """Largest difference between edited permuted and permuted edited fields, over the largest change of a weight.

    Args:
        editor: A trained editor.
        weights: Fields ``(N, *shape)``; each gets a permutation of its own.
    """
    spec = PermutationSpec.from_layout(editor.layout)
    num = len(next(iter(weights.values())))
    permutations = spec.random_permutation(torch.Generator().manual_seed(0), num=num)
    edited = editor(weights)
    expected, actual = spec.apply(edited, permutations), editor(spec.apply(weights, permutations))
    change = max(float((edited[name] - weights[name]).abs().max()) for name in weights)
    return max(float((actual[name] - expected[name]).abs().max()) for name in weights) / change


if __name__ == "__main__":
    sys.exit(main(run))
