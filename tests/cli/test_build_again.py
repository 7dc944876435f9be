"""A store can be made again: the same command gives the same bytes, and so does what the data card says."""

import json
import re
import shlex
import time

import pytest
from killer import shard_bytes

from wsrl.cli.main import main
from wsrl.store import WeightStore
from wsrl.store.directory import record_environment
from wsrl.store.remaking import remaking_command
from wsrl.store.schema import ENVIRONMENTS, read_manifest

SHARDS = ("--shards", "2", "--representation.rank", "2")


@pytest.fixture(scope="module")
def made(tiny_base, tmp_path_factory):
    """A store, built once for this module."""
    out = tmp_path_factory.mktemp("again") / "store"
    fit = ["--fit.steps", "3", "--fit.batch_size", "4", "--device", "cpu"]
    source = ["--source", "{limit: 10}", "--base", str(tiny_base)]
    assert main(["build", "digits", *source, "--out", str(out), *fit, *SHARDS]) == 0
    return out


def test_the_same_command_gives_the_same_bytes_at_another_time(build, made, tmp_path):
    time.sleep(1.1)  # times in files have seconds
    assert build(tmp_path / "two", *SHARDS) == 0
    assert shard_bytes(tmp_path / "two") == shard_bytes(made)


def test_another_seed_gives_other_bytes(build, made, tmp_path):
    assert build(tmp_path / "two", *SHARDS, "--fit.seed", "1") == 0
    assert shard_bytes(tmp_path / "two") != shard_bytes(made)


def test_what_the_card_says_makes_the_same_bytes(made, monkeypatch, capsys):
    card = (made / "README.md").read_text()
    section = card[card.index("## How to make it again") : card.index("## How to load it")]
    config = re.search(r"```json\n(.*?)```", section, re.DOTALL).group(1)
    (command,) = [line for line in section.splitlines() if line.startswith("wsrl build") and "AGAIN" in line]
    monkeypatch.chdir(made)
    (made.parent / "build.yaml").write_text(config)
    words = [word.replace("AGAIN", "../again").replace("build.yaml", "../build.yaml") for word in shlex.split(command)]
    assert main(words[1:]) == 0
    assert shard_bytes(made.parent / "again") == shard_bytes(made)
    for entry in read_manifest(made)["shards"]:
        assert f"{entry['sha256']}  {entry['file']}" in section


def test_the_card_names_code_versions_machine_and_base(made):
    card, manifest = (made / "README.md").read_text(), read_manifest(made)
    (environment,) = manifest[ENVIRONMENTS]
    versions, machine = environment["versions"], environment["machine"]
    assert environment["batch_size"] == 4 and environment["device"] == "cpu" and machine["threads"] >= 1
    assert f"numpy=={versions['numpy']}" in card and f"h5py=={versions['h5py']}" in card
    assert machine["cpu"] in card and manifest["base_sha256"] in card
    assert "wsrl base digits" in card and "wsrl verify . --refit 32" in card
    assert json.loads((made / "base/run.json").read_text())["config"]["train"]["seed"] == 0


def test_environments_are_kept_once(made):
    (environment,) = read_manifest(made)[ENVIRONMENTS]
    before = (made / "manifest.json").read_bytes()
    record_environment(made, environment)
    assert (made / "manifest.json").read_bytes() == before
    record_environment(made, environment | {"batch_size": 5})
    assert [found["batch_size"] for found in read_manifest(made)[ENVIRONMENTS]] == [4, 5]
    (made / "manifest.json").write_bytes(before)


def test_a_folder_is_named_by_the_user(made):
    manifest = read_manifest(made)
    folder = manifest | {"source": {**manifest["source"], "name": "holiday"}}
    assert remaking_command(folder)[2] == "PATH/TO/holiday" and remaking_command(folder, data="here")[2] == "here"


def test_verify_counts_the_fields_that_are_the_same(made, capsys):
    assert main(["verify", str(made), "--refit", "5"]) == 0
    assert "5 fields fitted again: 5 the same" in capsys.readouterr().out
    with WeightStore.open(made) as store:
        assert len(store) == 20
