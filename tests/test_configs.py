"""Every file under ``configs/`` is accepted by the parser of its command: no unknown key, no wrong type.

The name of a file says its stage: ``base*``, ``build*``, ``run*``, ``classifier*``, ``autoencoder*``, ``diffusion*``,
or one of ``PIPELINES``.
"""

from importlib import import_module
from pathlib import Path

import pytest

from pipelines.experiment import read_config
from wsrl.cli import parser as parsers

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))
NAMED = ["digits", "--out", "nowhere"]


def base(config):
    from wsrl.cli.base import make_parser

    parser = make_parser()
    return parser.instantiate(parsers.parse(parser, [*NAMED, "--config", config]))


def build(config):
    from wsrl.cli.build import make_parser

    parser = make_parser()
    return parser.instantiate(parsers.parse(parser, [*NAMED, "--config", config]))


def pipeline(module):
    """The stage that a pipeline is, whose module has the parser of its configuration."""

    def parse(config):
        return read_config(import_module(f"pipelines.{module}").run, ["--config", config])

    return parse


def run(config):
    from wsrl.cli.main import main

    return main(["run", *NAMED, "--config", config, "--print_config"]) == 0


def train(task):
    def parse(config):
        from wsrl.cli.main import main

        return main(["train", task, "--config", config, "--data.store", "nowhere", "--print_config"]) == 0

    return parse


PIPELINES = {
    "fitting": "benchmark_fitting",
    "meshing": "benchmark_meshing",
    "sampling": "benchmark_diffusion",
    "solids": "benchmark_solids",
    "representations": "representations",
    "shapes": "shapes",
    "weight_editing": "weight_editing",
    "weight_classification": "weight_classification",
    "generation": "generation",
    "structure": "structure",
    "probes": "probes",
    "network_alignment": "network_alignment",
    "zoo_alignment": "zoo_alignment",
    "posteriors": "posteriors",
    "prior": "prior",
    "alternatives": "alternatives",
    "resolution": "resolution",
}
STAGES = {
    "base": base,
    "build": build,
    "run": run,
    "classifier": train("classifier"),
    "autoencoder": train("autoencoder"),
    "diffusion": train("diffusion"),
    **{name: pipeline(module) for name, module in PIPELINES.items()},
}


def stage_of(path):
    found = [name for name in STAGES if path.stem == name or path.stem.startswith((f"{name}_", f"{name}-"))]
    assert found, f"{path}: the name says no stage; allowed are {', '.join(STAGES)}"
    return STAGES[found[0]]


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(CONFIGS).as_posix() for path in FILES])
def test_config_is_accepted(path, capsys):
    assert stage_of(path)(str(path))


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(CONFIGS).as_posix() for path in FILES])
def test_config_with_an_unknown_key_is_not(path, tmp_path, capsys):
    broken = tmp_path / path.name
    broken.write_text(path.read_text() + "\nno_such_key: 1\n")
    try:
        accepted = stage_of(path)(str(broken))
    except ValueError as error:  # a UserError
        assert "no_such_key" in str(error)
    else:
        assert accepted is False and "no_such_key" in capsys.readouterr().err


def test_there_are_configs():
    assert FILES
