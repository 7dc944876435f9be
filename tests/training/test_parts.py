"""Which part a field belongs to, and how readers share a part."""

import numpy as np
import pytest

from wsrl.store import WeightStore
from wsrl.store.splits import PARTS, PartReader, Share, part_codes, part_of


def test_splits_are_kept_and_a_share_of_train_is_held_out():
    names = [f"a/{n}" for n in range(2000)]
    assert {part_of(name, "test", 0.5, 0.5) for name in names} == {"test"}
    parts = [part_of(name, "train", 0.1, 0.5) for name in names]
    assert set(parts) == {"train", "val"}
    assert abs(parts.count("val") / 2000 - 0.1) < 0.03


def test_fields_without_a_split_are_spread_over_three_parts():
    parts = [part_of(f"a/{n}", "", 0.1, 0.2) for n in range(2000)]
    assert abs(parts.count("test") / 2000 - 0.2) < 0.03
    assert abs(parts.count("val") / 2000 - 0.08) < 0.03


def test_the_part_depends_on_the_id_alone(tmp_path, make_store):
    small = WeightStore.open(make_store(tmp_path / "small", num=30, shards=1))
    large = WeightStore.open(make_store(tmp_path / "large", num=60, shards=3))
    codes = [dict(zip(store.ids, part_codes(store, 0.3, 0.2).tolist())) for store in (small, large)]
    assert codes[0].items() <= codes[1].items()


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("seed", [None, 5])
def test_readers_share_a_part_without_loss_or_repeat(tmp_path, make_store, count, seed):
    store = WeightStore.open(make_store(tmp_path / "s", num=61, shards=4))
    chosen = part_codes(store, 0.2, 0.2) == PARTS.index("train")
    seen, sizes = [], []
    for number in range(count):
        rows = [name for b in PartReader(store, chosen, Share(number, count, seed=seed)).batches(4) for name in b.ids]
        sizes.append(len(rows))
        seen += rows
    assert sorted(seen) == sorted(np.array(store.ids)[chosen].tolist())
    assert max(sizes) - min(sizes) <= 1


def test_equal_shares_are_equal():
    sizes = {np.diff(Share(number, 4, equal=True).limits(11)).item() for number in range(4)}
    assert sizes == {2}
