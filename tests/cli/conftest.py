"""A tiny base field and the arguments of tiny builds."""

import pytest
from tiny import TINY_BASE, TINY_FIT

from wsrl.cli.main import main


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory):
    """The folder of a base field of a few grey digits; read it, do not write to it."""
    out = tmp_path_factory.mktemp("base") / "base"
    assert main(["base", "digits", "--source", "{limit: 10}", "--out", str(out), *TINY_BASE]) == 0
    return out


@pytest.fixture
def build(tiny_base):
    """A function ``build(out, *more, data="digits")`` that runs a tiny ``wsrl build`` and returns its status."""

    def run(out, *more, data="digits"):
        source = ["--source", "{limit: 10}"] if "--source" not in more else []
        return main(
            ["build", str(data), *source, "--base", str(tiny_base), "--out", str(out), *TINY_FIT, *map(str, more)]
        )

    return run


@pytest.fixture
def refused(capsys):
    """A function that runs a command which has to end in a three-part message, status 2 and no traceback."""

    def run(*argv):
        capsys.readouterr()
        assert main([str(word) for word in argv]) == 2
        message = capsys.readouterr().err
        assert "Allowed: " in message and "What to do: " in message and "Traceback" not in message
        return message

    return run
