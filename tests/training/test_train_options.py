"""Options of a training as typed values: what they become for Lightning, and what is refused before a run."""

import os

import pytest

from wsrl.errors import UserError
from wsrl.progress import silent
from wsrl.training.lightning_cli import ParsedCLI
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.run import TASKS, TrainedModel, assembled, check_options, plain_config
from wsrl.training.train_options import TrainOptions


def test_options_by_dotted_name_are_added_to_those_that_are_there():
    options = TrainOptions(store="s", out="o", trainer={"max_epochs": 1, "accelerator": "cpu"}, seed=3)
    changed = options.changed({"trainer.max_epochs": 2, "model.augment.noise": 0.4, "data.batch_size": 8})
    assert changed.nested() == {
        "seed_everything": 3,
        "model": {"augment": {"noise": 0.4}},
        "data": {"store": "s", "batch_size": 8},
        "trainer": {"default_root_dir": "o", "max_epochs": 2, "accelerator": "cpu"},
        "checkpoint": {},
        "ckpt_path": None,
    }
    assert options.trainer["max_epochs"] == 1 and not options.model


@pytest.mark.parametrize("name", ["nonsense", "model", "seed_everything", "optimizer.lr"])
def test_a_name_without_a_group_is_refused(name):
    with pytest.raises(UserError, match=f"{name}' is no option of a training. Allowed: names that begin with model"):
        TrainOptions(store="s", out="o").changed({name: 1})


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "option, told", [({"model.widht": 8}, "widht"), ({"trainer.max_epochs": "many"}, "max_epochs")]
)
def test_an_unknown_option_and_a_wrong_type_are_refused_before_anything_is_made(task, option, told, tmp_path):
    options = TrainOptions(store=tmp_path / "nowhere", out=tmp_path / "run")
    check_options(task, options)
    with pytest.raises(UserError, match=told):
        check_options(task, options.changed(option))
    assert not (tmp_path / "run").exists()


def test_a_trained_model_is_the_path_to_it(tmp_path):
    assert os.fspath(TrainedModel(folder=tmp_path, metrics={})) == str(tmp_path / "model")


@pytest.mark.parametrize("task", TASKS)
def test_typed_options_and_the_command_line_mean_the_same_run(task):
    """What is recorded, and by which a run goes on, does not depend on who started it."""
    options = {
        "trainer.max_epochs": 2,
        "trainer.gradient_clip_val": 0.5,
        "data.batch_size": 8,
        "data.val_fraction": 0.0,
    }
    typed = TrainOptions(store="s", out="o", seed=3).changed(options).nested()
    words = ["--data.store=s", "--trainer.default_root_dir=o", "--seed_everything=3"]
    words += [f"--{name}={value}" for name, value in options.items()]
    with quiet_lightning():
        one, two = (assembled(ParsedCLI, task, given, silent) for given in (typed, words))
    assert plain_config(one) == plain_config(two)
