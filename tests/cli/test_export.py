"""``wsrl export``: pictures, adapters that PEFT loads, and forms that ``wsrl import`` reads back bit for bit."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from siren_zoo import write_zoo

from wsrl.cli.main import main
from wsrl.fields.modulated_base import BaseField
from wsrl.signals.signal import grid_coords
from wsrl.store import WeightStore
from wsrl.store.verifying import verify

FILES = {"state_dict": "--state-dicts", "safetensors": "--state-dicts", "numpy": "--numpy", "peft": "--peft"}
ADAPTERS = [
    ("lora", "exp"),
    ("lora_asym", "exp"),
    ("mlora", "exp"),
    ("mlora", "one_plus"),
    ("mlora", "product"),
    ("mlora_asym", "exp"),
    ("mlora_asym", "one_plus"),
    ("mlora_asym", "product"),
]


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
        (["--num", "0"], "num is 0"),
        (["--all", "true", "--ids", "[digits/train/00000]"], "--all and --ids"),
        (["--ids", "[digits/train/00000, digits/train/00000]"], "names a field twice"),
        (["--size", "1"], "size is 1"),
    ],
)
def test_wrong_options_write_nothing(refused, digits_store, tmp_path, extra, wrong):
    assert wrong in refused("export", digits_store, "--out", tmp_path / "out", *extra)
    assert not (tmp_path / "out").exists()


def export(store, out, format, *more):
    assert main(["export", str(store), "--format", format, "--out", str(out), *map(str, more)]) == 0


def assert_same(first, second, num=None):
    """Two stores have the same fields, bit for bit, under the same ids, labels, splits and metrics."""
    with WeightStore.open(first) as one, WeightStore.open(second) as other:
        num = len(one) if num is None else num
        assert one.ids[:num] == other.ids and len(other) == num > 0
        assert one.layout == other.layout
        for key in ("representation", "base_sha256"):
            assert one.manifest[key] == other.manifest[key]
        for row in range(num):
            mine, theirs = one[row], other[row]
            assert mine.keys() == theirs.keys()
            for name, tensor in mine.items():
                assert torch.equal(tensor.view(torch.int32), theirs[name].view(torch.int32))
            mine, theirs = one.record(row), other.record(row)
            assert all(mine[key] == theirs[key] for key in ("id", "label", "split", "metrics"))


@pytest.mark.parametrize("format", ["state_dict", "safetensors", "numpy"])
def test_standalone_fields_come_back(digits_store, tmp_path, format):
    export(digits_store, tmp_path / "files", format, "--all")
    assert main(["import", FILES[format], str(tmp_path / "files"), "--out", str(tmp_path / "store")]) == 0
    assert verify(tmp_path / "store").ok
    assert_same(digits_store, tmp_path / "store")
    with WeightStore.open(digits_store) as one, WeightStore.open(tmp_path / "store") as other:
        assert one.label_names == other.label_names
        assert np.array_equal(np.asarray(one.field(3).image(16)), np.asarray(other.field(3).image(16)))


@pytest.mark.parametrize("kind, form", ADAPTERS)
def test_adapters_come_back(build, tmp_path, kind, form):
    kinds = ("--representation", kind, "--representation.form", form)
    assert build(tmp_path / "store", *kinds) == 0
    for format in ("peft", "safetensors"):
        export(tmp_path / "store", tmp_path / format, format, "--num", 3)
        assert main(["import", FILES[format], str(tmp_path / format), "--out", str(tmp_path / f"again_{format}")]) == 0
        assert_same(tmp_path / "store", tmp_path / f"again_{format}", num=3)


def test_mlp_asym_comes_back_with_its_mask(build, tmp_path):
    assert build(tmp_path / "store", "--representation", "mlp_asym") == 0
    export(tmp_path / "store", tmp_path / "files", "state_dict", "--all")
    assert main(["import", "--state-dicts", str(tmp_path / "files"), "--out", str(tmp_path / "again")]) == 0
    assert_same(tmp_path / "store", tmp_path / "again")


def test_files_are_plain_ones_of_their_kind(digits_store, tmp_path):
    for format in ("state_dict", "safetensors", "numpy"):
        export(digits_store, tmp_path / format, format, "--num", 2)
    with WeightStore.open(digits_store) as store:
        name, weights = store.id_of(1), store[1]
        flat = store.layout.flatten(weights).numpy()
    state = torch.load(tmp_path / "state_dict" / f"{name}.pt", weights_only=True)
    tensors = load_file(tmp_path / "safetensors" / f"{name}.safetensors")
    assert list(state) == list(weights) and all(torch.equal(state[k], tensors[k]) for k in weights)
    assert np.array_equal(np.load(tmp_path / "numpy" / "weights.npy")[1], flat)
    layout = json.loads((tmp_path / "numpy" / "layout.json").read_text())
    assert [entry["name"] for entry in layout] == list(weights)
    assert not list(tmp_path.rglob("*.tmp"))


def test_the_base_field_lies_beside_adapters(build, tiny_base, tmp_path):
    assert build(tmp_path / "store") == 0
    export(tmp_path / "store", tmp_path / "files", "state_dict", "--num", 2)
    base = BaseField.from_pretrained(tmp_path / "files" / "base")
    assert base.sha256() == BaseField.from_pretrained(tiny_base).sha256()


def test_an_imported_zoo_is_exported_with_its_convention(tmp_path):
    zoo = write_zoo(tmp_path / "zoo", num=3, steps=1)
    given = ["--network", str(zoo / "siren.yaml"), "--labels", str(zoo / "split.json")]
    assert main(["import", "--state-dicts", str(zoo), "--out", str(tmp_path / "store"), *given]) == 0
    export(tmp_path / "store", tmp_path / "files", "safetensors", "--all")
    assert main(["import", "--state-dicts", str(tmp_path / "files"), "--out", str(tmp_path / "again")]) == 0
    assert_same(tmp_path / "store", tmp_path / "again")


def test_plain_lora_of_peft_becomes_a_field(tiny_base, tmp_path):
    from peft import LoraConfig, get_peft_model

    coords = grid_coords((8, 8))
    expected = {}
    for name, alpha in (("a", 8), ("b", 4), ("c", 6)):
        trunk = BaseField.from_pretrained(tiny_base).trunk
        config = LoraConfig(r=4, lora_alpha=alpha, target_modules=["layers.0", "layers.1"], init_lora_weights=False)
        model = get_peft_model(trunk, config)
        model.save_pretrained(str(tmp_path / "adapters" / name))
        with torch.no_grad():
            expected[name] = model.eval()(coords)
    argv = ["import", "--peft", str(tmp_path / "adapters"), "--base", str(tiny_base), "--out", str(tmp_path / "store")]
    assert main(argv) == 1
    with WeightStore.open(tmp_path / "store") as store:
        assert store.ids == ["a", "b"]
        assert all((store.field(name)(coords) - expected[name]).abs().max() < 1e-5 for name in store.ids)
        ((failed, reason),) = store.failures
    assert failed == "c" and "scales layers.0.up by 1.5" in reason
    rounded = [*argv[:-1], str(tmp_path / "rounded"), "--rounding", "true"]
    assert main(rounded) == 0
    with WeightStore.open(tmp_path / "rounded") as store:
        assert (store.field("c")(coords) - expected["c"]).abs().max() < 1e-5


def test_adapters_that_do_not_fit_are_recorded(build, tmp_path, refused):
    assert build(tmp_path / "store") == 0
    export(tmp_path / "store", tmp_path / "files", "peft", "--num", 4)
    folders = sorted(path.parent for path in (tmp_path / "files").rglob("adapter_config.json"))
    (folders[0] / "adapter_model.safetensors").unlink()
    for folder, change in ((folders[1], {"form": "product"}), (folders[2], {"peft_type": "IA3"})):
        config = json.loads((folder / "adapter_config.json").read_text())
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
    assert main(["import", "--peft", str(tmp_path / "files"), "--out", str(tmp_path / "again")]) == 1
    with WeightStore.open(tmp_path / "again") as store:
        assert len(store) == 1
        reasons = [reason for _, reason in store.failures]
    for text, reason in zip(("adapter_model.safetensors cannot be read", "form 'product'", "type 'IA3'"), reasons):
        assert text in reason and "Allowed: " in reason and "What to do: " in reason
    (tmp_path / "files" / "network.yaml").unlink()
    assert "has masks" in refused("import", "--peft", tmp_path / "files", "--out", tmp_path / "x")
    (tmp_path / "files" / "base" / "config.json").unlink()
    assert "no base field" in refused("import", "--peft", tmp_path / "files", "--out", tmp_path / "x")


def test_arrays_that_do_not_fit_are_refused(digits_store, tmp_path, refused):
    files = tmp_path / "files"
    export(digits_store, files, "numpy", "--num", 3)
    argv = ("import", "--numpy", files, "--out", tmp_path / "store")
    labels, array = (files / "labels.csv").read_text().splitlines(), np.load(files / "weights.npy")
    (files / "labels.csv").write_text("\n".join(labels[:3]) + "\n")
    assert "has 3 rows, and the labels name 2" in refused(*argv)
    (files / "labels.csv").write_text("\n".join([*labels[:3], labels[1]]) + "\n")
    assert "twice" in refused(*argv)
    (files / "labels.csv").write_text("\n".join(labels) + "\n")
    for wrong in (array[:, 1:], array.astype(object), array[0]):
        np.save(files / "weights.npy", wrong, allow_pickle=True)
        assert "weights.npy" in refused(*argv)
    array[1, 4] = np.nan
    np.save(files / "weights.npy", array)
    assert main([str(word) for word in argv]) == 1
    with WeightStore.open(tmp_path / "store") as store:
        ((failed, reason),) = store.failures
        assert len(store) == 2 and failed == labels[2].split(",")[0] and "row 1: " in reason and "NaN" in reason


def test_an_export_does_not_mix_with_another(digits_store, tmp_path, refused):
    export(digits_store, tmp_path / "files", "safetensors", "--num", 2)
    export(digits_store, tmp_path / "files", "safetensors", "--num", 2)
    argv = ("export", digits_store, "--out", tmp_path / "files", "--format", "safetensors", "--num", "3")
    assert "holds another export" in refused(*argv)
