"""The options of ``wsrl eval``."""

from typing import Any

from jsonargparse import ArgumentParser

from wsrl.cli import parser as parsers
from wsrl.provenance import METRICS_FILE


def make_parser(description: str) -> ArgumentParser:
    """The parser of the command line; ``action`` tells which one is asked for."""
    parser = parsers.make_parser("eval", description)
    actions = parser.add_subcommands(
        required=True, dest="action", metavar="{reconstruction,probe,generation,structure}"
    )
    for name, (what, about, add_options) in ACTIONS.items():
        action = ArgumentParser(description=about, exit_on_error=False, allow_abbrev=False)
        add, where = action.add_argument, what.partition("|")[0]  # data may stand where a store stands
        add("path", type=str, metavar=what, help="the folder of the " + " or ".join(what.lower().split("|")))
        add("--out", type=str | None, metavar="FILE", help=f"file to write; {where}/{METRICS_FILE} if not given")
        add("--data", type=str | None, help="the source of the store; needed where it was a folder or a file")
        add("--seed", type=int, default=0, help="seed of splits, probes and samples")
        add_options(action)
        actions.add_subcommand(name, action, help=about)
    return parser


def _add_reconstruction(action: ArgumentParser) -> None:
    add = action.add_argument
    add("--recompute", type=int, default=0, metavar="K", help="evaluate K fields anew and compare")
    of_test = "score the fields of the test split also after this autoencoder"
    add("--autoencoder", type=str | None, metavar="DIR", help=of_test)
    add("--shapes", type=int | None, metavar="K", help="mesh and score K shapes; 200 where the data can be opened")
    add("--resolution", type=int, default=128, metavar="R", help="cells of the grid along a side of the cube")
    points = "points on either surface; at most what a signal has"
    add("--points", type=int, default=20_000, metavar="N", help=points)


def _add_probe(action: ArgumentParser) -> None:
    action.epilog = (
        "Of weights and of pixels (shapes: D2 histograms): accuracy of a logistic regression, a linear SVM, the "
        "nearest neighbour (Euclidean; by cosine about the mean) and a vote of k, all chosen inside the training part; "
        "agreement of k-means with the classes (ARI, NMI), silhouettes, and precision at 8 of test fields."
    )
    add = action.add_argument
    add("--limit", type=int, default=10_000, help="most fields of the train and of the test part")
    seeds = "score K times, and tell mean and standard deviation: see --folds"
    add("--seeds", type=int, default=1, metavar="K", help=seeds)
    add(
        "--folds", type=int | None, metavar="K",
        help="test every field once, in K folds that each seed draws anew: for few fields; else each of several seeds "
        "draws nine tenths of the training part",
    )  # fmt: skip
    efficiency = "also accuracies from 1, 5, 10 and 100 labelled fields per class"
    add("--label-efficiency", action="store_true", help=efficiency)
    add("--importance", action="store_true", help="also what each tensor, layer and factor is worth: takes minutes")
    gauge = (
        "raw; canonical also reads the factors of adapters in their one form, which --importance and --maps then show"
    )
    add("--gauge", type=str, default="raw", metavar="{raw,canonical}", help=gauge)
    maps = "draw PCA and t-SNE maps of up to 2,000 fields as DIR/pca.png, DIR/tsne.png"
    add("--maps", type=str | None, metavar="DIR", help=maps)


def _add_generation(action: ArgumentParser) -> None:
    add = action.add_argument
    add("--store", type=str, required=True, help="the store that the model was trained on")
    add("--num", type=int, default=256, help="fields to sample, and of each baseline")
    add("--steps", type=int, default=50, help="denoising steps")
    add("--limit", type=int, default=60_000, help="most training and most held-out fields to compare with")
    add("--references", type=int | None, metavar="K", help="most real pictures (10,000) or shapes (200)")
    features = "folder of classifiers or one of them, or timm:NAME; the cache if not given"
    add("--features", type=str | None, metavar="DIR", help=features)
    trained_on = "train the classifier on all training pictures of the source, or on those of the store's fields"
    add("--features-from", type=str, choices=("source", "store"), default="source", help=trained_on)
    add("--baselines", action="store_true", help="score noise on training fields, means of two and a Gaussian as well")
    add("--resolution", type=int, default=64, metavar="R", help="cells of a side of the grid that shapes are meshed on")


def _add_structure(action: ArgumentParser) -> None:
    action.epilog = (
        "DATA is fitted from one start and from others that are lambda away, as wsrl build would fit it. Of a STORE "
        "the effective rank and the cosine similarity between its fields are told; --with a second one of the same "
        "signals, the fields of either are compared. Two stores with independent starts and equal masks come from "
        "wsrl build --representation.start random with two values of --fit.seed. Figures with _ba are of the products "
        "B A of adapters, which are the same for all factors of a field; _others compares fields of different signals."
    )
    add = action.add_argument
    add("--with", type=str | None, metavar="STORE", help="STORE: a second one of the same signals and layout")
    add("--num", type=int, default=50, help="signals to measure on, at most")
    add("--points", type=int, default=25, help="points of the path between two fields")
    add("--base", type=str | None, metavar="DIR", help="DATA: the base field of adapters")
    kinds = "DATA: kinds to fit; all six, without --base mlp, mlp_asym"
    add("--representation", type=str, metavar="KIND", nargs="+", help=kinds)
    add("--lambdas", metavar="L", type=float, nargs="+", help="DATA: distances of the starts, from 0 to 1")
    config = "DATA: a configuration file of wsrl build, with representation and fit"
    add("--config", type=str | None, metavar="FILE", help=config)
    source = "DATA: options of the source, such as '{split: test}'"
    add("--source", type=dict[str, Any] | None, metavar="OPTIONS", help=source)


ACTIONS = {
    "reconstruction": ("STORE", "how well the fields reproduce their signals", _add_reconstruction),
    "probe": ("STORE", "what plain readers find in weights, and in pixels or shapes", _add_probe),
    "generation": ("MODEL", "whether sampled fields look like the data, and are new", _add_generation),
    "structure": ("STORE|DATA", "what fits of a signal from different starts have in common", _add_structure),
}
