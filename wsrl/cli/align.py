"""``wsrl align``: undo the permutations between two networks or two posteriors, or those of every field of a store."""

from pathlib import Path

from wsrl.cli import parser as parsers
from wsrl.cli.display import show_progress
from wsrl.errors import UserError
from wsrl.options import at_least, check_values
from wsrl.symmetry.matching import METHODS

MANIFEST = "manifest.json"
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
    template = "of a store: the field that all are aligned to; mean for their own mean"
    add("--template", type=text, metavar="ID", help=template)
    gauge = "of a store of adapters: every field's factors in their one form, balanced and ordered, without a template"
    add("--gauge", action="store_true", help=gauge)
    method = "what is matched; straight-through trains the permutation on --data"
    add("--method", type=str, choices=METHODS, default="weights", help=method)
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


def align_store(options) -> int:
    """Write every field of a store in the form nearest to a template; returns 0."""
    from wsrl.store.aligned import TEMPLATE, AlignConfig, align_fields

    (path,), allowed = options.paths, "the id of a field, mean, or a safetensors file"
    if options.template is None:
        raise UserError("no template is given", allowed=f"{allowed}; or --gauge", do="pass --template mean")
    if options.method != "weights":
        wrong = f"--method is {options.method!r} for a store"
        raise UserError(wrong, allowed="weights", do="leave out --method for stores")
    limit = {} if options.limit is None else {"num_fields": options.limit}
    config = AlignConfig(template=options.template, seed=options.seed, **limit)
    done = align_fields(Path(path), Path(options.out), config, progress=show_progress)
    if done.num_fields:
        print(
            f"{done.num_fields} fields aligned in {done.elapsed_s:.1f} s, {done.num_fields / done.elapsed_s:.0f}/s; "
            f"mean squared distance to the template {done.before:.4g} before, {done.after:.4g} after"
        )
    print(f"the aligned store is in {options.out}; its template in {Path(options.out) / TEMPLATE}")
    return 0


def canonicalise_store(options) -> int:
    """Write every field of a store of adapters in canonical gauge; returns 0."""
    from wsrl.store.canonical_store import canonicalise_fields

    (path,) = options.paths
    if options.template is not None or options.method != "weights":
        wrong = "--gauge is given with --template or --method: the form is the same for all stores"
        raise UserError(wrong, allowed="one of --gauge and --template", do="leave out one of them")
    done = canonicalise_fields(Path(path), Path(options.out), progress=show_progress)
    if done.num_fields:
        print(
            f"{done.num_fields} fields brought into canonical gauge in {done.elapsed_s:.1f} s, "
            f"{done.num_fields / done.elapsed_s:.0f}/s; mean sum of squares of the factors {done.before:.4g} before, "
            f"{done.after:.4g} after"
        )
    print(f"the store in canonical gauge is in {options.out}")
    return 0


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
    """Whether a file holds means and standard deviations, and nothing else."""
    from wsrl.symmetry.matching.alignment_files import tensor_names

    names = tensor_names(path)
    return all(name.startswith(POSTERIOR_PARTS) for name in names) and all(
        any(name.startswith(part) for name in names) for part in POSTERIOR_PARTS
    )
