"""A field read from a store gives the values and pictures of the field that was written, for each way of storing it."""

import pytest
import torch
from store_builds import start

from wsrl.errors import UserError
from wsrl.fields.base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.signal import grid_coords
from wsrl.store import FitResult, WeightStore
from wsrl.store.verify import verify
from wsrl.store.writer import ShardWriter, finalize

SMALL = FieldConfig(width=8, depth=2, num_frequencies=4)


def a_base(channels: int) -> BaseField:
    config = BaseFieldConfig(field=SMALL, latent_size=4, mapping_width=8)
    return BaseField(config, 2, channels, torch.Generator().manual_seed(1))


def a_store(path, kind: str, channels: int):
    """A store of one field that is not at its start, with its representation and weights."""
    base = a_base(channels) if "lora" in kind else None
    config = RepresentationConfig(kind=kind, rank=2, field=SMALL)
    representation = Representation.build(config, base, in_features=2, out_features=channels)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in representation.initial(torch.Generator().manual_seed(0)).items()
    }
    start(
        path,
        num=1,
        shards=1,
        layout=representation.layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256() if base else None,
        source={"name": "toy", "grid": (4, 8), "channels": channels},
        save_base=base.save_pretrained if base else None,
    )
    with ShardWriter(path, 0) as writer:
        writer.write_segment([FitResult(index=0, id="one", weights=weights)])
        writer.finish()
    finalize(path)
    return WeightStore.open(path), representation, weights


@pytest.mark.parametrize(("kind", "channels"), [("mlp", 1), ("mlora_asym", 3)])
def test_field_is_the_one_that_was_written(tmp_path, kind, channels):
    store, representation, weights = a_store(tmp_path, kind, channels)
    coords = grid_coords((5, 7))
    expected = representation.evaluate({name: tensor[None] for name, tensor in weights.items()}, coords)[0].detach()
    field = store.field("one")
    # Weights are exact, but a matrix product depends on where its operands lie in memory, in the last bit.
    torch.testing.assert_close(field(coords), expected, rtol=0, atol=1e-6)
    pixels = (field(coords).clamp(0, 1) * 255).round().to(torch.uint8).flatten().tolist()
    assert list(field.image((5, 7)).tobytes()) == pixels
    assert field.image((5, 7)).size == (7, 5)
    assert field.image(16).size == (16, 8), "one number is the longer side of the signal's shape"
    assert field.image(16).mode == ("L" if channels == 1 else "RGB")
    assert verify(tmp_path).ok


def test_another_or_missing_base_field_is_refused(tmp_path):
    a_store(tmp_path, "lora", 1)
    other = a_base(1)
    other.trunk.layers[0].bias.data += 1
    other.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="is not the one the fields were fitted with"):
        WeightStore.open(tmp_path).field("one")
    assert [problem.file for problem in verify(tmp_path).problems] == ["base"]


def test_package_offers_the_store():
    import wsrl

    assert wsrl.WeightStore is WeightStore
