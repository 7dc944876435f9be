"""``wsrl build``: its configuration, what it leaves, and what it does with pictures that cannot be read."""

import struct
import zlib

import pytest
import torch
import yaml
from PIL import Image

from wsrl.cli.build import parse_shard
from wsrl.cli.main import main
from wsrl.errors import UserError
from wsrl.fitting.defaults import default_fit, default_representation
from wsrl.fitting.shard_builder import segments
from wsrl.signals.form import SignalForm
from wsrl.store import WeightStore

DIGITS = SignalForm(in_features=2, out_features=1, grid=(8, 8))


def printed(capsys, *argv):
    assert main(["build", "digits", "--out", "nowhere", *argv, "--print_config"]) == 0
    return yaml.safe_load(capsys.readouterr().out)


def same_rows(one, two):
    with WeightStore.open(one) as first, WeightStore.open(two) as second:
        assert list(first.ids) == list(second.ids)
        return all(torch.equal(tensor, second[key][name]) for key in first.ids for name, tensor in first[key].items())


@pytest.mark.parametrize("kind", ["mlp", "lora", "mlora", "mlora_asym"])
def test_one_override_keeps_the_other_defaults_of_the_kind_and_the_data(capsys, kind):
    shown = printed(capsys, "--representation", kind, "--fit.batch_size", "32")
    fit, representation = default_fit(kind, DIGITS), default_representation(kind, DIGITS)
    assert shown["fit"] == {**vars(fit), "batch_size": 32}
    assert shown["representation"]["kind"] == kind
    assert shown["representation"]["rank"] == representation.rank


def test_config_file_and_later_options(capsys, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("representation: {kind: lora, rank: 3}\nfit: {steps: 7}\n")
    shown = printed(capsys, "--config", str(config), "--fit.steps", "8", "--representation=mlora")
    assert shown["fit"]["steps"] == 8 and shown["fit"]["learning_rate"] == default_fit("mlora", DIGITS).learning_rate
    assert (shown["representation"]["kind"], shown["representation"]["rank"]) == ("mlora", 3)


def test_print_config_writes_nothing_and_needs_no_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed(capsys)
    assert main(["build", "--print_config"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_build_leaves_a_store_and_a_rerun_changes_nothing(build, tmp_path, capsys):
    out = tmp_path / "store"
    assert build(out, "--representation.rank", "2") == 0
    before = {path: path.read_bytes() for path in out.glob("shard-*.h5")}
    assert build(out, "--representation.rank", "2") == 0
    assert before == {path: path.read_bytes() for path in out.glob("shard-*.h5")}
    with WeightStore.open(out) as store:
        assert len(store) == 20 and store.representation.config.rank == 2
        assert store.manifest["fit"]["steps"] == 3


def test_fields_short_of_the_asked_quality_are_counted(build, tmp_path, capsys):
    assert build(tmp_path / "store", "--fit.target_psnr", "90") == 0
    assert "20 fields took all steps without reaching fit.target_psnr" in capsys.readouterr().out
    with WeightStore.open(tmp_path / "store") as store:
        assert set(store.statuses()) == {"short"}


def test_shards_in_two_commands_equal_one_build(build, tmp_path, capsys):
    for shard in ("1/2", "0/2"):
        assert build(tmp_path / "parts", "--shard", shard) == 0
    assert "complete" in capsys.readouterr().out
    assert build(tmp_path / "whole", "--shards", "2") == 0
    assert same_rows(tmp_path / "parts", tmp_path / "whole")


def test_shard_texts():
    assert parse_shard("1/4") == (1, 4)
    for text in ("4/4", "1", "a/b", "-1/2"):
        with pytest.raises(UserError, match="I/N"):
            parse_shard(text)
    assert list(segments(iter(range(5)), 2)) == [[0, 1], [2, 3], [4]]


def huge_png():
    """The header of a 20,000x20,000 picture without its pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.fixture
def mixed_folder(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(4):
        Image.linear_gradient("L").rotate(90 * i).resize((16, 16)).save(folder / f"good{i}.png")
    Image.effect_noise((64, 64), 50).save(folder / "whole.jpg")
    (folder / "cut.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:700])
    (folder / "text.png").write_text("no picture")
    Image.new("L", (1, 1)).save(folder / "dot.png")
    (folder / "huge.png").write_bytes(huge_png())
    (folder / "gone.png").symlink_to(folder / "nowhere.png")  # root may read any file, but not this one
    return folder


def test_bad_pictures_are_listed_and_the_good_ones_fitted(build, mixed_folder, tmp_path, capsys):
    out, bad = tmp_path / "store", ("cut.jpg", "text.png", "dot.png", "huge.png", "gone.png")
    options = ("--source", "{size: 8, mode: L}")
    assert build(out, *options, data=mixed_folder) == 1
    first = capsys.readouterr().out
    assert "5 signals have no field" in first and all(f"  {name}: " in first for name in bad)
    assert "too many pixels" in first and "truncated" in first and "not a picture" in first
    manifest = (out / "manifest.json").read_bytes()
    assert build(out, *options, data=mixed_folder) == 1
    assert capsys.readouterr().out == first and (out / "manifest.json").read_bytes() == manifest
    assert main(["info", str(out)]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in bad)
    with WeightStore.open(out) as store:
        assert sorted(store.ids) == ["good0.png", "good1.png", "good2.png", "good3.png", "whole.jpg"]


def test_failures_of_one_shard_are_listed_before_the_others_are_built(build, mixed_folder, tmp_path, capsys):
    told = ""
    for shard in ("0/2", "1/2"):
        assert build(tmp_path / "store", "--source", "{size: 8, mode: L}", "--shard", shard, data=mixed_folder) == 1
        told = capsys.readouterr().out
    assert "5 signals have no field" in told
