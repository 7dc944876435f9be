"""``wsrl align``: undo the permutations between two networks or two posteriors, or those of every field of a store."""

import argparse
from pathlib import Path

from wsrl.errors import UserError
from wsrl.symmetry.matching import METHODS

MANIFEST = "manifest.json"
POSTERIOR_PARTS = ("mean.", "deviation.")
FOR_STORES = "a folder of a store, with --template and --out"
FOR_FILES = "two safetensors files of networks or of posteriors"


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl align``.

    Returns:
        0.
    """
    options = make_parser().parse_args(argv)
    check_options(options)
    kind = kind_of(options.paths)
    if kind == "store":
        from wsrl.cli.align_store import align_store

        return align_store(options)
    if kind == "posteriors":
        from wsrl.cli.align_posteriors import align_posteriors

        return align_posteriors(options)
    from wsrl.cli.align_networks import align_network_files

    return align_network_files(options)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="wsrl align", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help=f"{FOR_FILES}, of which the second is moved; or {FOR_STORES}")
    add("--out", required=True, metavar="DIR", help="folder to write to; of a store: the new store")
    add("--template", metavar="ID", help="of a store: the field that all are aligned to; mean for their own mean")
    add(
        "--method",
        choices=METHODS,
        default="weights",
        help="what is matched; straight-through trains the permutation on --data",
    )
    add("--network", metavar="MODULE:FUNCTION", help="makes the module; not needed for plain stacks of linear layers")
    add("--spec", metavar="FILE", help="the permutation spec as JSON, in place of one that is found by tracing")
    add("--data", metavar="NAME", help="a named source with labels: loss and accuracy along the path, and features")
    limits = "most examples of each split of --data; of a store: most fields that the mean is taken of"
    add("--limit", type=int, metavar="N", help=limits)
    add("--restarts", type=int, default=1, metavar="N", help="starts of weight matching; the best one is kept")
    add("--points", type=int, default=25, metavar="P", help="points of the path between the two")
    add("--samples", type=int, default=32, metavar="K", help="of posteriors: draws of the weights at every point")
    add("--seed", type=int, default=0, help="seed of orders, starts and draws")
    return parser


def check_options(options: argparse.Namespace) -> None:
    """Refuse numbers that are out of range.

    Raises:
        UserError: One is.
    """
    for name, least in (("restarts", 1), ("points", 3), ("samples", 1), ("limit", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")


def kind_of(paths: list[str]) -> str:
    """What is to be aligned: ``store``, ``posteriors`` or ``networks``.

    Raises:
        UserError: The paths are none of these.
    """
    folders = [path for path in paths if Path(path).is_dir()]
    if len(paths) == 1 and folders:
        if not (Path(paths[0]) / MANIFEST).is_file():
            raise UserError(f"{paths[0]} is no store: it has no {MANIFEST}", allowed=f"{FOR_STORES}; or {FOR_FILES}")
        return "store"
    if len(paths) != 2 or folders:
        which = f"the folder {folders[0]} is given" if folders else f"{len(paths)} files are given"
        raise UserError(which, allowed=f"{FOR_FILES}; or {FOR_STORES}", do="give two files, or one folder")
    parts = [_is_posterior(path) for path in paths]
    if parts[0] != parts[1]:
        posterior, network = sorted(paths, key=lambda path: not _is_posterior(path))
        raise UserError(
            f"{posterior} is a posterior, {network} is not",
            allowed=f"two posteriors (keys that begin with {' and '.join(POSTERIOR_PARTS)}), or two networks",
        )
    return "posteriors" if parts[0] else "networks"


def _is_posterior(path: str) -> bool:
    """Whether a file holds means and deviations, and nothing else."""
    from wsrl.symmetry.matching.alignment_files import tensor_names

    names = tensor_names(path)
    return all(name.startswith(POSTERIOR_PARTS) for name in names) and all(
        any(name.startswith(part) for name in names) for part in POSTERIOR_PARTS
    )
