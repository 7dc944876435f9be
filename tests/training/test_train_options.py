"""Options of a training as typed values: what they become for Lightning, and what is refused before a run."""

import os

import pytest

from wsrl.errors import UserError
from wsrl.training.run import TASKS, TrainedModel, check_options
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
