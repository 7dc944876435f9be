"""``wsrl align``: undo the permutations between two networks or two posteriors, or those of every field of a store."""

from pathlib import Path

from wsrl.cli import parser as parsers
from wsrl.errors import UserError
from wsrl.options import at_least, check_values
from wsrl.symmetry.matching import MATCHING_METHODS

POSTERIOR_PARTS = ("mean.", "deviation.")
FOR_STORES = "a folder of a store, with --template or --gauge, and --out"
FOR_FILES = "two safetensors files of networks or of posteriors"


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    options = parsers.parse(make_parser(), argv)
    least = {"restarts": 1, "points": 3, "samples": 1, "limit": 1}
    check_values(vars(options), "--", **{name: at_least(number) for name, number in least.items()})
    kind = kind_of(options.paths)
    if kind == "store":
        from wsrl.cli.align_store import align_store, canonicalise_store

        return canonicalise_store(options) if options.gauge else align_store(options)
    if options.gauge:
        raise UserError("--gauge is given for two files", allowed=FOR_STORES, do="leave out --gauge")
    if kind == "posteriors":
        from wsrl.cli.align_posteriors import align_posteriors

        return align_posteriors(options)
    from wsrl.cli.align_networks import align_network_files

    return align_network_files(options)


def make_parser():
    """The parser of the command line."""
    parser = parsers.make_parser("align", __doc__)
    add, text = parser.add_argument, str | None
    what = f"{FOR_FILES}, of which the second is moved; or {FOR_STORES}"
    add("paths", type=str, nargs="+", metavar="PATH", help=what)
    add("--out", type=str, required=True, metavar="DIR", help="folder to write to; of a store: the new store")
    _add_forms(add)
    method = "what is matched; straight-through trains the permutation on --data"
    add("--method", type=str, choices=MATCHING_METHODS, default="weights", help=method)
    network = "makes the module; not needed for plain stacks of linear layers"
    add("--network", type=text, metavar="MODULE:FUNCTION", help=network)
    spec = "the permutation spec as JSON, in place of one that is found by tracing"
    add("--spec", type=text, metavar="FILE", help=spec)
    data = "a named source with labels: loss and accuracy along the path, and features"
    add("--data", type=text, metavar="NAME", help=data)
    limits = "most examples of each split of --data; of a store: most fields that the mean is taken of, 1,024"
    add("--limit", type=int | None, metavar="N", help=limits)
    add("--restarts", type=int, default=1, metavar="N", help="starts of weight matching; the best one is kept")
    add("--points", type=int, default=25, metavar="P", help="points of the path between the two")
    add("--samples", type=int, default=32, metavar="K", help="of posteriors: draws of the weights at every point")
    add("--seed", type=int, default=0, help="seed of orders, starts and draws")
    return parser


def _add_forms(add) -> None:
    """The options of stores alone."""
    template = "of a store: the field that all are aligned to; mean for their own mean"
    add("--template", type=str | None, metavar="ID", help=template)
    gauge = "of a store of adapters: every field's factors in their one form, balanced and ordered, without a template"
    add("--gauge", action="store_true", help=gauge)


def kind_of(paths: list[str]) -> str:
    """What is to be aligned: ``store``, ``posteriors`` or ``networks``.

    Raises:
        UserError: The paths are none of these.
    """
    folders = [path for path in paths if Path(path).is_dir()]
    if len(paths) == 1 and folders:
        from wsrl.store.schema import MANIFEST

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
    """Whether a file holds means and standard deviations, and nothing else."""
    from wsrl.symmetry.matching.alignment_files import tensor_names

    names = tensor_names(path)
    return all(name.startswith(POSTERIOR_PARTS) for name in names) and all(
        any(name.startswith(part) for name in names) for part in POSTERIOR_PARTS
    )
