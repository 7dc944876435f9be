"""``wsrl train`` given again: it goes on, keeps what is finished, and refuses the folder of another model.

Public reports of the kind: Lightning#14466 and jinsuyoo/act#2 (a second run into the same folder).
"""

import json
import os

import pytest
import torch

from wsrl.cli.main import main
from wsrl.training.classifier import ClassifierTask
from wsrl.training.run_folder import newest_checkpoint

SMALL = {
    "classifier": ("--model.hidden", "[8]"),
    "regressor": ("--model.hidden", "[8]", "--model.target", "psnr"),
    "autoencoder": ("--model.width", "8", "--model.depth", "1", "--model.decoder_depth", "1", "--model.heads", "2",
                    "--model.expansion", "1", "--model.latent_tokens", "2", "--model.latent_channels", "3"),
    "diffusion": ("--model.width", "8", "--model.depth", "1", "--model.local_depth", "1", "--model.heads", "2"),
}  # fmt: skip


@pytest.fixture
def train(tmp_path, make_store, digits_store):
    """Train a small model in ``run``; returns the status."""
    made = make_store(tmp_path / "store", num=60)

    def call(task="classifier", *more, epochs=2):
        store = digits_store if task in ("autoencoder", "diffusion") else made
        fixed = ["--data.store", store, "--data.num_workers", "0", "--data.batch_size", "16"]
        fixed += ["--trainer.accelerator", "cpu", "--trainer.default_root_dir", tmp_path / "run"]
        fixed += ["--trainer.max_epochs", epochs]
        return main(["train", task, *map(str, [*fixed, *SMALL[task], *more])])

    return call


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def contents(run):
    return {path: path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def state(run):
    return torch.load(newest_checkpoint(run / "checkpoints"), weights_only=True)


def lines_of(task, text):
    return [line for line in text.splitlines() if line.startswith(f"{task}.")]


@pytest.mark.parametrize("task", SMALL)
def test_a_finished_run_is_kept_and_a_longer_one_goes_on(train, run, task, capsys):
    assert train(task) == 0
    before, shown = contents(run), lines_of(task, capsys.readouterr().out)
    assert train(task) == 0 and train(task, "--ckpt_path", "last") == 0 and train(task, epochs=1) == 0
    told = capsys.readouterr()
    assert told.err.count("already holds this model") == 3 and lines_of(task, told.out) == 3 * shown
    assert contents(run) == before
    assert train(task, epochs=3) == 0
    assert "going on from" in capsys.readouterr().err
    assert state(run)["epoch"] == 2 and contents(run) != before
    assert [path.name for path in (run / "checkpoints").glob("last*")] == ["last.ckpt"]


def test_an_interrupted_run_goes_on_and_ends_as_an_undisturbed_one(train, run, monkeypatch, capsys):
    assert train("classifier", "--model.dropout", "0", epochs=4) == 0
    whole = state(run)
    run.rename(run.with_name("whole"))

    def interrupt(task):
        if task.current_epoch == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ClassifierTask, "on_train_epoch_start", interrupt)
        assert train("classifier", "--model.dropout", "0", epochs=4) != 0
    assert "give the same command again" in capsys.readouterr().err
    assert train("classifier", "--model.dropout", "0", epochs=4) == 0
    assert "going on from" in capsys.readouterr().err
    again = state(run)
    assert again["epoch"] == whole["epoch"] == 3
    assert all(torch.equal(value, again["state_dict"][name]) for name, value in whole["state_dict"].items())


@pytest.mark.parametrize("task", SMALL)
def test_a_run_that_was_killed_after_its_last_epoch_is_finished(train, run, task):
    assert train(task) == 0
    (run / "metrics.json").unlink()
    record = json.loads((run / "run.json").read_text())
    record.pop("results")
    (run / "run.json").write_text(json.dumps(record))
    (run / "model").rename(run / "gone")
    assert train(task) == 0
    assert (run / "metrics.json").is_file() and state(run)["epoch"] == 1
    for path in (run / "gone").rglob("*.safetensors"):
        assert (run / "model" / path.relative_to(run / "gone")).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "task, options, told",
    [
        ("classifier", ["--model.encoder", "deepsets", "--model.hidden", "null"], "model.encoder is 'mlp' there"),
        ("classifier", ["--model.hidden", "[4]"], "model.hidden is [8] there and [4] here"),
        ("classifier", ["--seed_everything", "1"], "seed_everything is 0 there and 1 here"),
        ("classifier", ["--data.batch_size", "8"], "data.batch_size is 16 there"),
        ("classifier", ["--trainer.gradient_clip_val", "1"], "trainer.gradient_clip_val is None there"),
        ("classifier", ["--seed_everything", "1", "--ckpt_path", "last"], "seed_everything"),
        ("regressor", [], "it holds a run of wsrl train classifier"),
    ],
)
def test_another_model_is_refused_and_nothing_changes(train, run, task, options, told, capsys):
    assert train() == 0
    before = contents(run)
    assert train(task, *options) == 2
    message = capsys.readouterr().err
    assert "belongs to another model" in message and told in message
    assert "choose another --trainer.default_root_dir, or remove that folder" in message
    assert contents(run) == before


def test_other_fields_under_the_same_name_are_refused(train, tmp_path, make_store, capsys):
    assert train() == 0
    (tmp_path / "store").rename(tmp_path / "before")
    make_store(tmp_path / "store", num=50)
    assert train() == 2
    assert "trained on other fields" in capsys.readouterr().err
    assert train("classifier", "--data.store", str(tmp_path / "before")) == 0  # a store that only moved


def test_a_run_that_left_nothing_may_be_another_one(train, run):
    run.mkdir()
    (run / "run.json").write_text(json.dumps({"command": "wsrl train classifier", "config": {"seed_everything": 7}}))
    assert train() == 0


def test_a_short_trial_leaves_the_record_of_the_run(train, run):
    assert train() == 0
    before = contents(run)
    assert train("classifier", "--trainer.fast_dev_run", "true", "--seed_everything", "3") == 0
    assert {path: before[path] for path in before if path.name in ("run.json", "metrics.json")} == {
        path: path.read_bytes() for path in before if path.name in ("run.json", "metrics.json")
    }


def test_last_is_the_newest_by_time_and_not_by_name(train, run, tmp_path):
    """Lightning#14466: a second run into a folder writes ``last-v1.ckpt`` beside the older ``last.ckpt``."""
    assert newest_checkpoint(tmp_path / "nowhere") is None
    names = ["epoch=9-step=1.ckpt", "last.ckpt", "last-v1.ckpt", "last-v2.ckpt"]
    for name, seconds in zip(names, (9, 1, 5, 3)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (seconds, seconds))
    assert newest_checkpoint(tmp_path).name == "last-v1.ckpt"
    for name in names[1:]:
        (tmp_path / name).unlink()
    assert newest_checkpoint(tmp_path).name == names[0]
    # In a run: the older of two is of another length, and training goes on from the newer one.
    assert train(epochs=2) == 0
    last = run / "checkpoints" / "last.ckpt"
    last.rename(last.with_name("last-v1.ckpt"))
    last.write_bytes(b"of an older run")
    os.utime(last, (1, 1))
    assert train("classifier", "--ckpt_path", "last", epochs=3) == 0
    assert state(run)["epoch"] == 2


def test_an_unfinished_run_of_more_epochs_is_not_cut(train, run, capsys):
    assert train(epochs=4) == 0
    (run / "metrics.json").unlink()
    assert train(epochs=2) == 2
    message = capsys.readouterr().err
    assert "the checkpoint is of a longer run" in message and "raise --trainer.max_epochs" in message
    assert train(epochs=4) == 0


def test_checkpoints_without_a_record_are_gone_on_from_only_where_that_is_asked_for(train, run, tmp_path, capsys):
    shared = ("--checkpoint.dirpath", str(tmp_path / "shared"))
    assert train("classifier", *shared) == 0
    run.rename(tmp_path / "first")
    assert train("classifier", *shared, "--seed_everything", "1") == 0
    assert "going on from" not in capsys.readouterr().err
