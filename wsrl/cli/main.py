"""The command ``wsrl``: finds the stage, runs it, and turns what the user can mend into one message.

A stage is a module of this package with ``main(argv) -> int``; it is imported only when it is chosen, so that
``wsrl --help`` answers at once.
"""

import argparse
import difflib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from wsrl.cli.display import never_silent
from wsrl.errors import UserError, disk_error, system_message

EXIT_WRONG = 2
EXIT_INTERRUPTED = 130


def _demo(argv: list[str]) -> int:
    from wsrl.cli.demo import main

    return main(argv)


def _run(argv: list[str]) -> int:
    from wsrl.cli.run import main

    return main(argv)


def _data(argv: list[str]) -> int:
    from wsrl.cli.data import main

    return main(argv)


def _base(argv: list[str]) -> int:
    from wsrl.cli.base import main

    return main(argv)


def _build(argv: list[str]) -> int:
    from wsrl.cli.build import main

    return main(argv)


def _info(argv: list[str]) -> int:
    from wsrl.cli.info import main

    return main(argv)


def _verify(argv: list[str]) -> int:
    from wsrl.cli.verify import main

    return main(argv)


def _import(argv: list[str]) -> int:
    from wsrl.cli.import_fields import main

    return main(argv)


def _export(argv: list[str]) -> int:
    from wsrl.cli.export import main

    return main(argv)


def _train(argv: list[str]) -> int:
    from wsrl.cli.train import main

    return main(argv)


def _sample(argv: list[str]) -> int:
    from wsrl.cli.sample import main

    return main(argv)


def _align(argv: list[str]) -> int:
    from wsrl.cli.align import main

    return main(argv)


def _eval(argv: list[str]) -> int:
    from wsrl.cli.eval import main

    return main(argv)


@dataclass(frozen=True)
class Command:
    """A stage of the command line: what it is for, and how it is run."""

    help: str
    run: Callable[[list[str]], int]


COMMANDS: dict[str, Command] = {
    "demo": Command("the whole flow on handwritten digits, minutes on two cores", _demo),
    "run": Command("the whole flow on a named source or on a folder of yours", _run),
    "data": Command("list the named sources, or prepare one", _data),
    "base": Command("train a base field", _base),
    "build": Command("fit every signal into a weight store; continues what is there", _build),
    "info": Command("what a store holds", _info),
    "verify": Command("check a store's checksums, and refit some of its fields", _verify),
    "import": Command("make a store out of state_dict files, PEFT adapters or an array", _import),
    "export": Command("write fields as state_dicts, PEFT adapters, an array or pictures", _export),
    "train": Command("train a model over weights with Lightning: classifier, regressor, diffusion", _train),
    "sample": Command("draw weights from a diffusion model, and the pictures they make", _sample),
    "eval": Command("score a store or a model: reconstruction, probe, structure, generation", _eval),
    "align": Command("match networks, posteriors or the fields of a store modulo permutation", _align),
}


def usage() -> str:
    """The text of ``wsrl --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: wsrl COMMAND [options]",
            "",
            "Turn pictures into a data set of neural-field weights, and learn from those weights.",
            "",
            "commands:",
            *lines,
            "",
            "wsrl COMMAND --help lists the options of a command. Start with: wsrl demo",
        ]
    )


def unknown_command(name: str) -> UserError:
    """The error for a command that does not exist, with the nearest ones that do."""
    near = difflib.get_close_matches(name, COMMANDS, n=2, cutoff=0.5)
    do = f"perhaps you mean {' or '.join(f'wsrl {guess}' for guess in near)}" if near else "run wsrl --help"
    return UserError(f"unknown command {name!r}", allowed=", ".join(COMMANDS), do=do)


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: what is open is closed, and a message says how to continue."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():  # Lightning leaves its own behind
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _say(message: str) -> None:
    print(f"wsrl: {message}", file=sys.stderr)


def _exit_code(stop: SystemExit) -> int:
    """The status a stage's own parser asked for; a text is printed as a message."""
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    _say(str(stop.code))
    return EXIT_WRONG


def run_command(name: str, argv: Sequence[str]) -> int:
    """Run one stage; what the user can mend becomes a message on stderr and a status.

    Args:
        name: A key of the command table.
        argv: The arguments after the command.

    Returns:
        0 done, 1 done with failures that are listed, 2 wrong usage or input, 130 interrupted.
    """
    try:
        with terminated_as_interrupted(), never_silent(name):
            return COMMANDS[name].run(list(argv)) or 0
    except UserError as error:
        _say(str(error))
    except argparse.ArgumentError as error:
        _say(str(UserError(str(error), do=f"see wsrl {name} --help")))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit stays silent
    except OSError as error:
        _say(str(system_message(error)))
    except SystemExit as stop:
        return _exit_code(stop)
    except KeyboardInterrupt:
        _say("interrupted. What is finished is kept; run the same command again to continue.")
        return EXIT_INTERRUPTED
    except Exception as error:  # a bug goes on its way, a refusal of the disk becomes a message
        refusal = disk_error(error)
        if refusal is None:
            raise
        _say(str(system_message(refusal)))
    return EXIT_WRONG


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``wsrl``; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name of the user's may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if arguments else EXIT_WRONG
    if arguments[0] == "--version":
        import wsrl

        print(f"wsrl {wsrl.__version__}")
        return 0
    if arguments[0] not in COMMANDS:
        _say(str(unknown_command(arguments[0])))
        return EXIT_WRONG
    return run_command(arguments[0], arguments[1:])


if __name__ == "__main__":
    sys.exit(main())
