"""``wsrl export``: pictures, and adapters that PEFT loads."""

import pytest
import torch
from PIL import Image

from wsrl.cli.main import main
from wsrl.fields.base import BaseField
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore


@pytest.mark.parametrize("kind", ["lora", "lora_asym", "mlora", "mlora_asym"])
def test_peft_gives_the_same_picture(build, tiny_base, tmp_path, kind):
    from peft import PeftModel

    import wsrl.adapters.mlora  # noqa: F401  registers the method

    assert build(tmp_path / "store", "--representation", kind) == 0
    out = tmp_path / "out"
    assert main(["export", str(tmp_path / "store"), "--format", "peft", "--num", "2", "--out", str(out)]) == 0
    coords = grid_coords((8, 8))
    with WeightStore.open(tmp_path / "store") as store, torch.no_grad():
        for field_id in list(store.ids)[:2]:
            trunk = BaseField.from_pretrained(tiny_base).trunk
            bare = trunk(coords)
            adapted = PeftModel.from_pretrained(trunk, str(out / field_id))(coords)
            assert (adapted - store.field(field_id)(coords)).abs().max() < 1e-5
            assert (adapted - bare).abs().max() > 1e-4


def test_images_of_chosen_fields(digits_store, tmp_path):
    with WeightStore.open(digits_store) as store:
        chosen = list(store.ids)[3:5]
    argv = ["export", str(digits_store), "--out", str(tmp_path), "--ids", f"[{', '.join(chosen)}]", "--size", "24"]
    assert main(argv) == 0
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")} == {f"{i}.png" for i in chosen}
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as image:
            assert image.size == (24, 24)
    assert main(argv) == 0


@pytest.mark.parametrize(
    "extra, wrong",
    [
        (["--format", "jpeg"], "format is 'jpeg'"),
        (["--format", "peft"], "adapt no base field"),
        (["--ids", "[digits/none]"], "no field 'digits/none'"),
        (["--num", "0"], "--num is 0"),
        (["--size", "1"], "--size is 1"),
    ],
)
def test_wrong_options_write_nothing(refused, digits_store, tmp_path, extra, wrong):
    assert wrong in refused("export", digits_store, "--out", tmp_path / "out", *extra)
    assert not (tmp_path / "out").exists()
