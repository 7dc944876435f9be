"""``wsrl align`` of a store: every field nearest to a template, or its factors in canonical gauge."""

from pathlib import Path

from wsrl.cli.display import show_progress
from wsrl.errors import UserError


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
