"""``wsrl train``: what a run leaves, how it is continued, and what wrong input ends in."""

import json

import pytest
import torch

from wsrl import WeightStore
from wsrl.cli.main import main
from wsrl.encoders.models import WeightClassifier, WeightRegressor


@pytest.fixture
def arguments(tmp_path, make_store):
    store = make_store(tmp_path / "store", num=60)
    return [
        "train", "classifier", "--data.store", str(store), "--data.num_workers", "0", "--data.batch_size", "16",
        "--model.hidden", "[8]", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu",
        "--trainer.default_root_dir", str(tmp_path / "run"),
    ]  # fmt: skip


def epochs_logged(run):
    rows = (run / "csv" / "metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("epoch")
    return sorted({int(row.split(",")[column]) for row in rows[1:]})


def test_a_run_leaves_model_metrics_logs_checkpoints_and_its_record(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    run = tmp_path / "run"
    metrics = json.loads((run / "metrics.json").read_text())
    assert 0 <= metrics["classifier.test_accuracy"] <= 1 and metrics["elapsed_s"] > 0
    assert "classifier.test_accuracy" in capsys.readouterr().out
    assert (run / "model" / "model.safetensors").is_file()
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert list((run / "tensorboard").glob("events*")) and epochs_logged(run) == [0, 1, 2]
    record = json.loads((run / "run.json").read_text())
    assert record["config"]["model"]["hidden"] == [8] and record["seed"] == 0
    assert len(record["inputs"]["store"]["sha256"]) == 64 and record["elapsed_s"] > 0


def test_the_process_is_left_as_it_was(arguments):
    assert not torch.are_deterministic_algorithms_enabled()
    assert main(arguments) == 0
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resuming_equals_an_undisturbed_run(arguments, tmp_path):
    arguments += ["--model.dropout", "0.0", "--trainer.max_epochs", "4", "--checkpoint.save_top_k", "-1"]
    root = "--trainer.default_root_dir"
    assert main([*arguments, root, str(tmp_path / "whole")]) == 0
    (middle,) = (tmp_path / "whole" / "checkpoints").glob("epoch=1-*.ckpt")
    assert main([*arguments, root, str(tmp_path / "again"), "--ckpt_path", str(middle)]) == 0
    assert epochs_logged(tmp_path / "again") == [2, 3, 4]
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "again")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    start = torch.load(middle, weights_only=True)["state_dict"]
    assert not all(torch.equal(value, states[0][name]) for name, value in start.items())


def test_last_continues_a_run_and_starts_one_that_has_no_checkpoint(arguments, tmp_path, capsys):
    assert main([*arguments, "--ckpt_path", "last"]) == 0
    assert "training starts from the beginning" in capsys.readouterr().err
    assert main([*arguments, "--trainer.max_epochs", "3", "--ckpt_path", "last"]) == 0
    last = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 2


SMALL = {
    "mlp": "{hidden: [8]}",
    "deepsets": "{width: 8, embedding_size: 8}",
    "statnn": "{hidden: [8]}",
    "transformer": "{width: 8, depth: 1, heads: 2}",
    "unf": "{channels: 4, depth: 2, hidden_size: 8, embedding_size: 8}",
}


@pytest.fixture
def plain(tmp_path, make_store):
    """Arguments without the task: one epoch on a small store."""
    return [
        "--data.store", str(make_store(tmp_path / "store", num=60)), "--data.num_workers", "0",
        "--trainer.max_epochs", "1", "--trainer.accelerator", "cpu",
        "--trainer.default_root_dir", str(tmp_path / "run"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", SMALL)
def test_every_encoder_trains_and_is_exported(plain, tmp_path, kind):
    chosen = ["--model.encoder", kind, "--model.options", SMALL[kind]]
    assert main(["train", "classifier", *plain, *chosen]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    model = WeightClassifier.from_pretrained(tmp_path / "run" / "model")
    assert model.encoder.kind == kind and model.label_names == ("even", "odd")
    batch = next(WeightStore.open(tmp_path / "store").batches(100, split="test"))
    accuracy = (model(batch.weights).argmax(1) == batch.labels).double().mean()
    assert metrics["classifier.test_accuracy"] == pytest.approx(float(accuracy))


def test_a_regressor_learns_a_stored_metric_and_names_those_there_are(plain, tmp_path, capsys):
    assert main(["train", "regressor", *plain, "--model.target", "psnr", "--model.hidden", "[8]"]) == 0
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())
    names = {f"regressor.{part}_{name}" for part in ("val", "test") for name in ("loss", "mae", "r2", "kendall")}
    assert names <= found.keys() and "regressor.test_kendall" in capsys.readouterr().out
    assert WeightRegressor.from_pretrained(tmp_path / "run" / "model").target == "psnr"
    assert main(["train", "regressor", *plain, "--model.target", "loss"]) == 2
    message = capsys.readouterr().err
    assert "no metric 'loss'" in message and "Allowed: psnr, ssim" in message


def test_options_come_from_yaml_and_by_nested_keys(plain, tmp_path):
    (tmp_path / "c.yaml").write_text(
        "model:\n  encoder: deepsets\n  options: {width: 8}\n  augment: {permute: true, scale: 0.1}\n"
    )
    nested = ["--model.options.embedding_size", "6", "--model.augment.noise", "0.2"]
    assert main(["train", "classifier", *plain, "--config", str(tmp_path / "c.yaml"), *nested]) == 0
    record = json.loads((tmp_path / "run" / "run.json").read_text())["config"]["model"]
    assert record["options"] == {"width": 8, "embedding_size": 6}
    assert record["augment"] == {"permute": True, "scale": 0.1, "noise": 0.2, "dropout": 0.0}
    assert WeightClassifier.from_pretrained(tmp_path / "run" / "model").encoder.embedding_size == 6


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_resuming_draws_the_same_augmentation(plain, tmp_path):
    plain += ["--model.hidden", "[8]", "--model.dropout", "0", "--trainer.max_epochs", "3"]
    plain += ["--model.augment", "{permute: true, scale: 0.2, noise: 0.3, dropout: 0.1}"]
    plain += ["--checkpoint.save_top_k", "-1"]
    root = "--trainer.default_root_dir"
    assert main(["train", "classifier", *plain, root, str(tmp_path / "whole")]) == 0
    (middle,) = (tmp_path / "whole" / "checkpoints").glob("epoch=0-*.ckpt")
    again = ["--ckpt_path", str(middle), root, str(tmp_path / "again")]
    assert main(["train", "classifier", *plain, *again]) == 0
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "again")
    ]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_print_config_needs_no_store(capsys):
    assert main(["train", "classifier", "--data.store", "anywhere", "--print_config"]) == 0
    text = capsys.readouterr().out
    assert "max_epochs: 100" in text and "store: anywhere" in text and "save_last: true" in text


@pytest.mark.parametrize(
    "extra, wrong",
    [
        (["--model.lrr", "1"], "--model.lrr"),
        (["--model.lr", "abc"], "model.lr"),
        (["--config", "/nowhere.yaml"], "/nowhere.yaml"),
        (["--trainer.accelerator", "gpu"], "gpu"),
        (["--ckpt_path", "/nowhere.ckpt"], "there is no checkpoint /nowhere.ckpt"),
        (["--model.encoder", "mpl"], "unknown encoder 'mpl'"),
        (["--model.options", "{widht: 4}"], "unknown option 'widht'"),
        (["--model.augment.noise", "-1"], "augment.noise is -1.0"),
        (["--model.augment.nose", "1"], "nose"),
        (["--data.batch_size", "0"], "data.batch_size is 0"),
        (["--data.store", "/nowhere"], "/nowhere"),
    ],
)
def test_wrong_input_ends_in_a_message(arguments, tmp_path, capsys, extra, wrong):
    if torch.cuda.is_available() and "gpu" in extra:
        pytest.skip("this machine has the device")
    assert main([*arguments, *extra]) == 2
    message = capsys.readouterr().err
    assert wrong in message and "Allowed: " in message and "What to do: " in message
    assert not (tmp_path / "run" / "model").exists()


def test_a_config_with_an_unknown_key_is_refused(arguments, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text("model:\n  hiden: [8]\n")
    assert main([*arguments, "--config", str(tmp_path / "c.yaml")]) == 2
    assert "hiden" in capsys.readouterr().err


def test_a_truncated_checkpoint_and_one_of_another_model_are_refused(arguments, tmp_path, capsys):
    assert main(arguments) == 0
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(last.read_bytes()[:2000])
    assert main([*arguments, "--ckpt_path", str(broken)]) == 2
    assert "cannot be read" in capsys.readouterr().err
    assert main([*arguments, "--model.hidden", "[4]", "--ckpt_path", str(last)]) == 2
    assert "belongs to another model" in capsys.readouterr().err


def test_unknown_task(capsys):
    assert main(["train", "regresor"]) == 2
    assert "classifier, regressor, autoencoder, diffusion" in capsys.readouterr().err
