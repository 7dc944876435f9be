"""The page on the file format: its snippet evaluates a field, and it names all that is in the files."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from contracts import ROUNDING, random_weights

from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.signal import grid_coords
from wsrl.store import FitResult, WeightStore
from wsrl.store.writer import ShardWriter, create_or_resume, finalize

PAGE = (Path(__file__).resolve().parents[2] / "wsrl" / "store" / "README.md").read_text()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of three fields that adapt a base field."""
    directory = tmp_path_factory.mktemp("format") / "store"
    field = FieldConfig(width=8, depth=3, num_frequencies=6, activation="silu", residual=True)
    base = BaseField(BaseFieldConfig(field=field, latent_size=4), 2, 3, torch.Generator().manual_seed(0)).eval()
    representation = Representation.build(RepresentationConfig(kind="mlora", rank=2), base)
    create_or_resume(
        directory,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256(),
        source={"name": "toy"},
        fit={},
        num_signals=4,
        num_shards=1,
        label_names=(),
        save_base=base.save_pretrained,
    )
    weights = random_weights(representation)
    with ShardWriter(directory, 0) as writer:
        rows = [{name: tensor[i] for name, tensor in weights.items()} for i in range(3)]
        results = [FitResult(index=i, id=f"{i}", weights=row, metrics={"psnr": 1.0}) for i, row in enumerate(rows)]
        writer.write_segment([*results, FitResult(index=3, id="3", status="failed", reason="bad")])
        writer.finish()
    finalize(directory)
    return directory


def test_the_snippet_gives_the_values_of_the_field(store):
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for row in range(3):
        space = {}
        exec(snippet.replace('Path("runs/demo/fields"), 0', f"Path({str(store)!r}), {row}"), space)
        with WeightStore.open(store) as opened:
            field = opened.field(row)
        assert np.allclose(space["coords"], grid_coords((8, 8)), atol=ROUNDING)
        assert np.abs(space["values"] - field(space["coords"]).numpy()).max() < ROUNDING


def test_the_page_names_every_key_and_column(store):
    manifest = json.loads((store / "manifest.json").read_text())
    named = set(re.findall(r"[\w/]+", PAGE))
    assert named >= manifest.keys() | manifest["shards"][0].keys() | manifest["layout"][0].keys()
    with h5py.File(store / "shard-00000-of-00001.h5") as shard:
        assert named >= set(shard.attrs)
        columns = []
        shard.visititems(lambda name, item: columns.append(name) if isinstance(item, h5py.Dataset) else None)
    columns = {name for name in columns if not name.startswith(("weights/", "metrics/"))}
    assert columns and named >= columns
