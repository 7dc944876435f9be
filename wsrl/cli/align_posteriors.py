"""``wsrl align`` of two posterior files: the second moved to where the units of the first are, and the path between."""

import sys

from wsrl.cli.align_networks import finish, read_examples, read_symmetry, start_run
from wsrl.errors import UserError
from wsrl.provenance import METRICS_FILE


def align_posteriors(options) -> int:
    """Align two posteriors; with ``--data`` the marginalised barrier too, on its test split."""
    from wsrl.symmetry.matching import posterior_alignment
    from wsrl.symmetry.matching.posteriors import check_alike
    from wsrl.training.variational import load_posterior, save_posterior

    if options.method != "weights":
        raise UserError(f"--method {options.method} is given for posteriors", allowed="--method weights")
    reference, moving = (load_posterior(path) for path in options.paths)
    check_alike(reference, moving)
    known, examples = read_examples(options, reference.means, read_symmetry(options))
    out = start_run(options)
    choice = {"num_points": options.points, "num_samples": options.samples}
    choice |= {"examples": examples.get("test", examples.get("train")), "restarts": options.restarts}
    alignment = posterior_alignment.align_posteriors(reference, moving, **known, **choice, seed=options.seed)
    metrics = alignment.metrics()
    save_posterior(out, alignment.aligned, {**dict(zip(("reference", "moving"), options.paths)), "seed": options.seed})
    finish(out, alignment.permutation, metrics)
    for name, value in metrics.items():
        if not name.rpartition(".")[2].isdigit():
            print(f"{name:<34} {value:.4f}")
    print(f"the aligned posterior, its permutations and {METRICS_FILE} are in {out}", file=sys.stderr)
    return 0
