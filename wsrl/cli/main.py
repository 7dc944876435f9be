"""The command ``wsrl``: a table of stages, each a module of this package that is imported when it is chosen."""

import difflib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from wsrl.cli.exits import EXIT_WRONG, guarded, say_wrong
from wsrl.errors import UserError


@dataclass(frozen=True)
class Command:
    """A stage of the command line: what it is for, and how it is run."""

    help: str
    run: Callable[[list[str]], int]


def stage(module: str) -> Callable[[list[str]], int]:
    """The function ``main(argv) -> status`` of a module of this package, which is imported when it is called."""
    return lambda argv: import_module(f"wsrl.cli.{module}").main(argv)


COMMANDS: dict[str, Command] = {
    "demo": Command("the whole flow on handwritten digits, minutes on two cores", stage("demo")),
    "run": Command("the whole flow on a named source or on a folder of yours", stage("run")),
    "data": Command("list the named sources, or prepare one", stage("data")),
    "base": Command("train a base field", stage("base")),
    "build": Command("fit every signal into a weight store; continues what is there", stage("build")),
    "info": Command("what a store holds", stage("info")),
    "verify": Command("check a store's checksums, and refit some of its fields", stage("verify")),
    "import": Command("make a store out of state_dict files, PEFT adapters or an array", stage("import_fields")),
    "export": Command("write fields as state_dicts, PEFT adapters, an array, pictures or meshes", stage("export")),
    "train": Command("train on weights with Lightning: classifier, regressor, autoencoder, diffusion", stage("train")),
    "sample": Command("draw weights from a diffusion model, and the pictures or meshes they make", stage("sample")),
    "eval": Command("score a store or a model: reconstruction, probe, structure, generation", stage("eval")),
    "align": Command("match networks, posteriors or the fields of a store modulo permutation", stage("align")),
}


def usage() -> str:
    """The text of ``wsrl --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: wsrl COMMAND [options]",
            "",
            "Turn pictures and 3D shapes into a data set of neural-field weights, and learn from those weights.",
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
    name, *options = arguments
    if name not in COMMANDS:
        say_wrong(str(unknown_command(name)))
        return EXIT_WRONG
    return guarded(name, lambda: COMMANDS[name].run(options))


if __name__ == "__main__":
    sys.exit(main())
