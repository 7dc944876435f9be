"""The command's table, its help and its messages."""

import argparse
import errno

import pytest

from wsrl.cli import main as command_line
from wsrl.cli.main import COMMANDS, Command, main
from wsrl.errors import UserError, system_message


def run_raising(monkeypatch, error):
    def stage(argv):
        raise error

    monkeypatch.setitem(COMMANDS, "probe-stage", Command("raises", stage))
    return main(["probe-stage"])


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)


def test_no_command_is_wrong_usage(capsys):
    assert main([]) == 2
    assert "usage: wsrl" in capsys.readouterr().out


def test_unknown_command_suggests_the_nearest(capsys):
    assert main(["biuld"]) == 2
    message = capsys.readouterr().err
    assert "unknown command 'biuld'" in message and "Allowed: demo" in message and "wsrl build" in message


def test_user_error_is_a_message_and_status_2(monkeypatch, capsys):
    assert run_raising(monkeypatch, UserError("no such store", allowed="a folder", do="build it")) == 2
    message = capsys.readouterr().err
    assert message == "wsrl: no such store. Allowed: a folder. What to do: build it.\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT])
def test_os_errors_say_what_is_allowed_and_what_to_do(monkeypatch, capsys, number):
    assert run_raising(monkeypatch, OSError(number, "refused", "/there")) == 2
    message = capsys.readouterr().err
    assert "refused: /there" in message and "Allowed: " in message and "What to do: " in message


def test_full_disk_promises_to_continue():
    assert "same command again" in str(system_message(OSError(errno.ENOSPC, "No space left on device", "/x")))


def test_parser_errors_point_to_the_help(monkeypatch, capsys):
    assert run_raising(monkeypatch, argparse.ArgumentError(None, "Key 'ranc' is not expected")) == 2
    message = capsys.readouterr().err
    assert "Key 'ranc' is not expected" in message and "wsrl probe-stage --help" in message


def test_interrupt_says_how_to_continue(monkeypatch, capsys):
    assert run_raising(monkeypatch, KeyboardInterrupt()) == 130
    assert "run the same command again" in capsys.readouterr().err


def test_a_status_of_a_stage_is_passed_on(monkeypatch):
    monkeypatch.setitem(COMMANDS, "probe-stage", Command("fails in part", lambda argv: len(argv)))
    assert main(["probe-stage", "one"]) == 1
    assert run_raising(monkeypatch, SystemExit(0)) == 0


def test_a_bug_is_not_hidden(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        run_raising(monkeypatch, ZeroDivisionError())


def test_every_stage_can_be_found():
    assert set(COMMANDS) == {
        "demo", "run", "data", "base", "build", "info", "verify", "import", "export", "train", "sample", "eval",
        "align",
    }  # fmt: skip
    assert command_line.COMMANDS["demo"].help
