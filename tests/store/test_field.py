"""A field read from a store gives the values and pictures of the field that was written, for each way of storing it."""

import pytest
import torch
from store_builds import start

from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.signals.form import SignalForm
from wsrl.signals.signal import grid_coords
from wsrl.store import FitResult, WeightStore
from wsrl.store.verifying import verify
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


@pytest.fixture
def a_field(tmp_path):
    return a_store(tmp_path, "mlp", 3)[0].field(0)


def test_coordinates_of_any_real_type_and_with_any_leading_axes(a_field):
    """As reported for other callables of PyTorch: float64 from NumPy, integers, a grid (H, W, 2), lists, no points."""
    coords = grid_coords((8, 8))
    expected = a_field(coords)
    for given in (coords.double(), coords.numpy(), coords.double().numpy(), coords.tolist()):
        torch.testing.assert_close(a_field(given), expected, rtol=0, atol=1e-6)
    grid = a_field(coords.reshape(8, 8, 2))
    assert grid.shape == (8, 8, 3) and grid.dtype == torch.float32
    torch.testing.assert_close(grid.reshape(64, 3), expected, rtol=0, atol=1e-6)
    corner = a_field(torch.tensor([1, -1]))
    assert corner.shape == (3,)
    torch.testing.assert_close(corner, a_field(torch.tensor([[1.0, -1.0]]))[0], rtol=0, atol=1e-6)
    assert a_field(torch.zeros(0, 2)).shape == (0, 3)


@pytest.mark.parametrize(
    ("coords", "message"),
    [
        (torch.zeros(4, 3), r"the shape \(4, 3\)"),
        (torch.zeros(2, 8), r"the shape \(2, 8\)"),
        (torch.tensor(0.5), r"the shape \(\)"),
        (torch.zeros(4, 2, dtype=torch.complex64), "complex64"),
        (torch.zeros(4, 2, dtype=torch.bool), "bool"),
        ("here", "no array of numbers: str"),
        (None, "no array of numbers: NoneType"),
        ([[0, 1], [2]], "no array of numbers: list"),
    ],
)
def test_what_are_no_coordinates_is_refused(a_field, coords, message):
    with pytest.raises(UserError, match=rf"{message}.*Allowed: real numbers \(\.\.\., 2\).*do: ") as caught:
        a_field(coords)
    assert caught.value.do


@pytest.mark.parametrize(("features", "channels"), [(1, 1), (3, 4), (4, 3), (2, 2), (3, 1)])
def test_fields_that_are_no_pictures_have_no_image(features, channels):
    """INRs of audio, radiance fields, videos and flows: errors of matrix shapes elsewhere."""
    from wsrl.store.field import Field

    field = FieldConfig(width=4, depth=1, encoding="identity")
    made = Representation.build(
        RepresentationConfig(kind="mlp", field=field), in_features=features, out_features=channels
    )
    form = SignalForm(in_features=features, out_features=channels)
    one = Field(made, made.initial(torch.Generator().manual_seed(0)), form)
    assert one(torch.zeros(5, 2, features)).shape == (5, 2, channels)
    with pytest.raises(UserError, match=f"from {features} coordinates to {channels} values has no picture"):
        one.image(8)
    if not form.is_shape:
        with pytest.raises(UserError, match="has no surface"):
            one.mesh(8)
