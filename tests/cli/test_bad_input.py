"""Wrong input of ``wsrl base``, ``build``, ``sample`` and ``export``: a message, status 2, nothing half-written."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError
from tiny import TINY_BASE, TINY_FIT

from wsrl.cli.main import COMMANDS, Command, main
from wsrl.errors import disk_error


@pytest.mark.parametrize(
    "extra, wrong",
    [
        (["--fit.stepz", "1"], "fit.stepz"),
        (["--fit.steps", "many"], "fit.steps"),
        (["--fit.steps", "0"], "fit.steps is 0"),
        (["--representation", "mlroa"], "kind is 'mlroa'"),
        (["--representation.form", "cosine"], "form is 'cosine'"),
        (["--source", "{limt: 3}"], "limt"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--config", "/tmp"], "/tmp"),
        (["--base", "/nowhere"], "/nowhere does not hold a base field"),
        (["--shard", "2/2"], "--shard is '2/2'"),
        (["--shards", "0"], "num_shards is 0"),
        (["--engine", "slurm"], "engine is 'slurm'"),
        (["--device", "tpu9"], "tpu9"),
    ],
)
def test_wrong_options_of_build(refused, tiny_base, tmp_path, extra, wrong):
    out = tmp_path / "store"
    argv = ["build", "digits", "--source", "{limit: 4}", "--base", tiny_base, "--out", out, *TINY_FIT]
    assert wrong in refused(*argv, *extra)
    assert not out.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
@pytest.mark.parametrize("command", ["base", "build"])
def test_a_missing_gpu(refused, tiny_base, tmp_path, command):
    more = ["--base", tiny_base] if command == "build" else []
    message = refused(command, "digits", "--source", "{limit: 4}", *more, "--out", tmp_path / "o", "--device", "cuda")
    assert "no device 'cuda'" in message and not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    "content", [b"fit: [", b"fit: {stepz: 3}", b"fit: {steps: soon}", b"just words", b"\x00\x01", b"\xff\xfe\x00"]
)
def test_a_config_that_cannot_be_used(refused, tiny_base, tmp_path, content):
    (tmp_path / "c.yaml").write_bytes(content)
    refused("build", "digits", "--base", tiny_base, "--out", tmp_path / "o", "--config", tmp_path / "c.yaml")
    assert not (tmp_path / "o").exists()


def test_an_adapter_without_a_base_field(refused, tmp_path):
    assert "adapts a base field" in refused("build", "digits", "--out", tmp_path / "o", *TINY_FIT)
    assert not (tmp_path / "o").exists()


def test_a_base_field_that_does_not_fit(refused, build, tiny_base, tmp_path):
    colour = ["build", "digits", "--source", "{limit: 10, mode: RGB}", "--base", tiny_base, *TINY_FIT]
    assert "to 1 channels, the data need 2 to 3" in refused(*colour, "--out", tmp_path / "rgb")
    assert not (tmp_path / "rgb").exists()
    assert build(tmp_path / "store") == 0
    other = tmp_path / "other"
    seed = ["--train.seed", "5"]
    assert main(["base", "digits", "--source", "{limit: 10}", "--out", str(other), *TINY_BASE, *seed]) == 0
    manifest = (tmp_path / "store" / "manifest.json").read_bytes()
    argv = ["build", "digits", "--source", "{limit: 10}", "--base", other, "--out", tmp_path / "store", *TINY_FIT]
    assert "holds another build: base_sha256" in refused(*argv)
    assert (tmp_path / "store" / "manifest.json").read_bytes() == manifest


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_damaged_base_field(refused, tiny_base, tmp_path, name):
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in ("model.safetensors", "config.json"):
        content = (tiny_base / path).read_bytes()
        (broken / path).write_bytes(content[: len(content) // 2] if path == name else content)
    argv = ["build", "digits", "--source", "{limit: 4}", "--base", broken, "--out", tmp_path / "o", *TINY_FIT]
    assert "does not hold a base field" in refused(*argv)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "newer"])
def test_a_damaged_store(build, tmp_path, capsys, damage):
    out = tmp_path / "store"
    assert build(out) == 0
    (shard,) = out.glob("shard-*.h5")
    content = bytearray(shard.read_bytes())
    if damage == "truncated":
        shard.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)
    else:
        manifest = json.loads((out / "manifest.json").read_text())
        (out / "manifest.json").write_text(json.dumps(manifest | {"version": manifest["version"] + 1}))
    capsys.readouterr()
    assert main(["verify", str(out)]) != 0
    told = "".join(capsys.readouterr())
    assert "Traceback" not in told and ("version" if damage == "newer" else shard.name) in told


def test_an_empty_folder_and_one_that_is_not_ours(refused, tiny_base, tmp_path):
    (tmp_path / "empty").mkdir()
    argv = ["--base", tiny_base, *TINY_FIT]
    message = refused("build", tmp_path / "empty", "--out", tmp_path / "o", *argv)
    assert "has no pictures" in message and not (tmp_path / "o").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.tex").write_text("mine")
    for command, more in (("build", argv), ("base", TINY_BASE)):
        assert "not ours" in refused(command, "digits", "--source", "{limit: 4}", "--out", mine, *more)
    assert [path.name for path in mine.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "error, number",
    [
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), errno.ENOSPC),
        (SafetensorError('Error: IoError(Os { code: 28, kind: StorageFull, message: "No space" })'), errno.ENOSPC),
        (RuntimeError("Unable to flush file (errno = 30, error message = 'Read-only')"), errno.EROFS),
    ],
)
def test_a_refusal_of_the_disk_inside_a_library_is_a_message(monkeypatch, refused, error, number):
    def stage(argv):
        raise error

    assert disk_error(error).errno == number
    monkeypatch.setitem(COMMANDS, "probe-stage", Command("raises", stage))
    assert os.strerror(number) in refused("probe-stage")


def test_a_bug_is_not_taken_for_the_disk():
    error = RuntimeError("mat1 and mat2 shapes cannot be multiplied (28x5 and 4x3)")
    assert disk_error(error) is None
    error.__context__ = OSError(errno.ENOSPC, "full")
    assert disk_error(error).errno == errno.ENOSPC
    bug = KeyError("name")
    bug.__context__ = OSError(errno.EACCES, "refused")
    assert disk_error(bug) is None


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 kB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_and_a_read_only_one(refused, small_disk, tiny_base):
    wide = ["--train.model.field.width", "256", "--train.stages", "[{resolution: 1.0, batch_size: 2, steps: 1}]"]
    base = ["base", "digits", "--source", "{limit: 4}", "--out", small_disk / "base", *TINY_BASE, *wide]
    assert "pace" in refused(*base)  # no space, free some space
    assert not list((small_disk / "base").glob("*.tmp")) and not (small_disk / "base" / "model.safetensors").exists()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    build = ["build", "digits", "--source", "{limit: 4}", "--base", tiny_base, "--out", small_disk / "store", *TINY_FIT]
    assert "ead-only" in refused(*build)
    assert "ead-only" in refused(*base[:5], small_disk / "other", *TINY_BASE)


def test_terminated_says_how_to_continue(tmp_path):
    program = (
        "import os, signal, sys\nfrom wsrl.cli import main as m\n"
        "m.COMMANDS['probe'] = m.Command('', lambda argv: os.kill(os.getpid(), signal.SIGTERM) or signal.pause())\n"
        "sys.exit(m.main(['probe']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 130 and "run the same command again to continue" in done.stderr
    assert "Traceback" not in done.stderr


def test_signal_handlers_are_put_back(monkeypatch):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    monkeypatch.setitem(COMMANDS, "probe-stage", Command("leaves", lambda argv: 0))
    assert main(["probe-stage"]) == 0
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
