"""The part that holds the class is the important one."""

import numpy as np
import pytest

from wsrl.evaluation.importance import columns_of_parts, part_importance
from wsrl.evaluation.protocol import Items
from wsrl.fields.layout import Layout, TensorSpec


def test_parts_are_tensors_layers_and_factors_without_frozen_entries(adapter_layout):
    more = [TensorSpec(name=f"layers.1.{name}", shape=(1, 2), axes=(None, None), group="layers.1", token_axis=0)
            for name in ("down", "up")]  # fmt: skip
    parts = columns_of_parts(Layout((*adapter_layout.tensors, *more)))
    assert list(parts["layers.0.down"]) == [0, 1, 2, 3] and list(parts["layers.0.up"]) == [4, 5, 6, 7, 8, 9]
    assert list(parts["layers.1"]) == [10, 11, 12, 13] and list(parts["*.up"]) == [4, 5, 6, 7, 8, 9, 12, 13]
    assert set(parts) == {
        "layers.0.down", "layers.0.up", "layers.0", "layers.1.down", "layers.1.up", "layers.1", "*.down", "*.up",
    }  # fmt: skip
    assert set(columns_of_parts(adapter_layout)) == {"layers.0.down", "layers.0.up", "layers.0"}


def test_only_the_part_with_the_class_matters():
    labels = np.arange(150) % 3
    features = np.random.default_rng(0).normal(size=(150, 7)).astype(np.float32)
    features[:, :3] += 4 * np.eye(3)[labels]
    parts = {"class": np.arange(3), "noise": np.arange(3, 7), "frozen": np.arange(0), "all": np.arange(7)}
    scores = part_importance(Items(features, labels, np.arange(100), np.arange(100, 150)), parts, seeds=2)
    assert set(scores) == {"class", "noise", "all"}
    assert scores["class"]["alone"].mean > 0.9 and scores["class"]["left_out"].mean > 0.4
    assert scores["class"]["shuffled"].mean > 0.4 and len(scores["class"]["shuffled"].values) == 2
    assert scores["noise"]["alone"].mean < 0.6
    assert abs(scores["noise"]["left_out"].mean) < 0.05 and abs(scores["noise"]["shuffled"].mean) < 0.05
    assert scores["all"]["left_out"].mean == pytest.approx(scores["all"]["alone"].mean - 1 / 3, abs=0.02)
