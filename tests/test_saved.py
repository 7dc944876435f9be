"""``load`` opens whatever is in a folder; tests/test_contents.py opens trained models."""

import pytest
import torch

from wsrl import UserError, WeightStore, load
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig


def test_a_base_field(tmp_path):
    BaseField(BaseFieldConfig(latent_size=4), 2, 1).save_pretrained(tmp_path / "base")
    base = load(tmp_path / "base")
    assert isinstance(base, BaseField) and base.config.latent_size == 4


def test_a_store_and_a_shard_of_it(make_store, tmp_path):
    out = make_store(tmp_path / "store", num=6)
    store, shard = load(out), load(next(out.glob("shard-*.h5")))
    assert isinstance(store, WeightStore) and isinstance(shard, WeightStore) and len(store) == 6
    assert all(torch.equal(tensor, shard[0][name]) for name, tensor in store[0].items())


@pytest.mark.parametrize("config", ["", "no JSON", "[]", "{}", '{"model": "Transformer"}'])
def test_what_wsrl_did_not_write_is_refused(tmp_path, config):
    if config:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=r"holds nothing that wsrl wrote\. Allowed: a weight store"):
        load(tmp_path)
