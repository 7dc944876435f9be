"""``wsrl eval``: score a store or a model, say what came out, and write ``metrics.json``."""

import argparse
from collections.abc import Callable
from pathlib import Path

from wsrl.cli import eval_generation, eval_probe, eval_structure
from wsrl.cli.display import say
from wsrl.cli.summary import INDENT, summary
from wsrl.errors import UserError
from wsrl.provenance import METRICS_FILE, merge_metrics

NUM_SHAPES = 200


def main(argv: list[str]) -> int:
    """Run the command.

    Args:
        argv: Arguments after ``wsrl eval``.

    Returns:
        0.
    """
    options = make_parser().parse_args(argv)
    prefix, metrics = options.run(options)
    metrics = {f"{prefix}.{name}": value for name, value in metrics.items()}
    path = Path(options.out) if options.out else Path(options.path) / METRICS_FILE
    merge_metrics(path, metrics)
    print(*summary(metrics), f"{'all figures:':<{INDENT}}{path}", sep="\n")
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    parser = argparse.ArgumentParser(prog="wsrl eval", description=__doc__, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="{reconstruction,probe,generation,structure}")

    def add(name: str, run: Callable, what: str, about: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=about, description=about, allow_abbrev=False)
        action.set_defaults(run=run)
        place = what.partition("|")[0]  # data may stand where a store stands
        action.add_argument("path", metavar=what, help="the folder of the " + " or ".join(what.lower().split("|")))
        action.add_argument("--out", metavar="FILE", help=f"file to write; {place}/{METRICS_FILE} if not given")
        action.add_argument("--data", help="the source of the store; needed where it was a folder or a file")
        action.add_argument("--seed", type=int, default=0, help="seed of splits, probes and samples")
        return action

    action = add("reconstruction", reconstruction, "STORE", "how well the fields reproduce their signals")
    action.add_argument("--recompute", type=int, default=0, metavar="K", help="evaluate K fields anew and compare")
    action.add_argument(
        "--autoencoder", metavar="DIR", help="score the fields of the test split also after this autoencoder"
    )
    add_shape_arguments(action)
    action = add("probe", eval_probe.probe, "STORE", "what plain readers find in weights, and in pixels or shapes")
    eval_probe.add_arguments(action)
    action = add(
        "generation", eval_generation.generation, "MODEL", "whether sampled fields look like the data, and are new"
    )
    eval_generation.add_arguments(action)
    action = add(
        "structure",
        eval_structure.structure,
        "STORE|DATA",
        "what fits of a signal from different starts have in common",
    )
    eval_structure.add_arguments(action)
    return parser


def add_shape_arguments(action: argparse.ArgumentParser) -> None:
    """Add the options for the scores of surfaces."""
    add = action.add_argument
    add("--shapes", type=int, metavar="K", help=f"mesh and score K shapes; {NUM_SHAPES} where the data can be opened")
    add("--resolution", type=int, default=128, metavar="R", help="cells of the grid along a side of the cube")
    add("--points", type=int, default=20_000, metavar="N", help="points on either surface; at most what a signal has")


def reconstruction(options: argparse.Namespace) -> tuple[str, dict]:
    """Summaries of the recorded metrics, of fields evaluated anew, and of the surfaces of shapes."""
    from wsrl.evaluation.reconstruction import recomputed, recorded
    from wsrl.store import WeightStore
    from wsrl.store.source import open_store_source

    with WeightStore.open(options.path) as store:
        metrics = recorded(store)
        if options.recompute > 0 and len(store):
            rows = some_rows(store, options.recompute, options.seed)
            metrics |= recomputed(store, open_store_source(store, options.data), rows)
        if options.autoencoder and len(store) and not store.form.is_shape:
            metrics |= picture_scores_through(store, options)
        if store.form.is_shape and len(store):
            metrics |= surface_scores(store, options)
        elif options.shapes:
            raise UserError(
                f"--shapes is given, but {options.path} holds pictures", allowed="a store of shapes", do="leave it out"
            )
    return "reconstruction", metrics


def some_rows(store, number: int, seed: int):
    """So many rows of a store drawn at random, or all, in order."""
    import numpy as np

    return np.sort(np.random.default_rng(seed).permutation(len(store))[:number])


def heldout_rows(store):
    """Rows of the test split, or all where there is none."""
    import numpy as np

    rows = np.flatnonzero(store.splits() == "test")
    return rows if len(rows) else np.arange(len(store))


def open_through(store, path: str) -> Callable:
    """The autoencoder in a folder as a function from weights to weights."""
    from wsrl.encoders.autoencoder import open_autoencoder

    return open_autoencoder(path, store.layout)


def picture_scores_through(store, options: argparse.Namespace) -> dict:
    """PSNR of the test fields after an autoencoder, beside that of the same fields as they are stored."""
    from wsrl.evaluation.reconstruction import reconstructed
    from wsrl.store.source import open_store_source

    through = open_through(store, options.autoencoder)
    return reconstructed(store, open_store_source(store, options.data), through, heldout_rows(store))


def surface_scores(store, options: argparse.Namespace) -> dict:
    """Scores of the surfaces of some fields; says how they are normalised and what they are taken on."""
    from wsrl.cli.display import show_progress
    from wsrl.evaluation.shape_reconstruction import score_fields, summarise_scores
    from wsrl.store.source import find_store_source, open_store_source

    asked = NUM_SHAPES if options.shapes is None else options.shapes
    if asked == 0:
        return {}
    source = find_store_source(store, options.data)
    if source is None and options.shapes is None:
        say("no scores of surfaces: give the data of the store with --data")
        return {}
    source = source or open_store_source(store, options.data)
    rows = some_rows(store, positive(asked, "--shapes"), options.seed)
    through = open_through(store, options.autoencoder) if options.autoencoder else None
    if through is not None:  # training fields say nothing of an autoencoder
        rows = heldout_rows(store)
        rows = rows[some_rows(rows, asked, options.seed)]
    resolution = positive(options.resolution, "--resolution")
    num_points = min(positive(options.points, "--points"), source.options.num_surface)
    passes = {"": None} | ({} if through is None else {"autoencoder_": through})
    found = {"resolution": resolution, "num_points": num_points}
    with show_progress("shapes scored", len(rows) * len(passes)) as shown:
        how = {"resolution": resolution, "num_points": num_points, "seed": options.seed, "tell": shown.advance}
        for prefix, network in passes.items():
            scores = score_fields(store, source, rows, **how, through=network)
            summary = summarise_scores(scores, store.splits()[rows])
            found |= {prefixed(prefix, name): value for name, value in summary.items()}
    say(about_scores(resolution, num_points))
    return found


def prefixed(prefix: str, name: str) -> str:
    """A dotted key with a prefix on its last part."""
    *path, last = name.split(".")
    return ".".join([*path, prefix + last])


def about_scores(resolution: int, num_points: int) -> str:
    """What the scores of surfaces are taken on and what they mean, in a few lines."""
    from wsrl.evaluation.shapes import DIAGONAL, THRESHOLD
    from wsrl.signals.shapes.soup import NORMALISED_RADIUS

    return (
        f"Normalisation: centre of the bounding box at the origin, farthest vertex at radius {NORMALISED_RADIUS}.\n"
        f"Meshes on {resolution} cells along a side of the cube [-1, 1]^3, {num_points} points on either surface.\n"
        "chamfer_l1: mean Euclidean distance to the nearest point of the other surface; chamfer_l2_squared: mean of\n"
        "its square; both averaged over the two directions, as are the absolute cosines of normal_consistency.\n"
        f"f_score: at {THRESHOLD:g}, 1% of the cube's side; with so many points, at most f_score_ceiling.\n"
        "iou: of the field itself at held-out points, uniform in the cube.\n"
        f"An empty mesh counts with the worst there is: chamfer_l1 {DIAGONAL:.3f}, chamfer_l2_squared "
        f"{DIAGONAL**2:.0f}, f_score and normal_consistency 0."
    )


def positive(number: int, name: str) -> int:
    """The number, refused where it is not positive."""
    if number < 1:
        raise UserError(f"{name} is {number}", allowed="1 or more", do=f"choose another {name}")
    return number
