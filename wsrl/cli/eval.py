"""``wsrl eval``: score a store or a model, say what came out, and write ``metrics.json``."""

from collections.abc import Callable
from pathlib import Path

from wsrl.cli import eval_options, eval_structure
from wsrl.cli.display import show_progress
from wsrl.cli.option_names import options_in_messages, picked
from wsrl.cli.parser import parse
from wsrl.cli.summary import INDENT, summary
from wsrl.provenance import METRICS_FILE, merge_metrics


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    parsed = parse(eval_options.make_parser(__doc__), argv)
    options = parsed[parsed.action]
    with options_in_messages(options.keys()):
        scores = ACTIONS[parsed.action](options)
    metrics = {f"{parsed.action}.{name}": value for name, value in scores.items()}
    path = Path(options.out) if options.out else Path(options.path) / METRICS_FILE
    merge_metrics(path, metrics)
    print(*summary(metrics), f"{'all figures:':<{INDENT}}{path}", sep="\n")
    return 0


def reconstruction(options) -> dict[str, float]:
    """Recorded metrics of a store, and the scores of its surfaces."""
    from wsrl.evaluation.store_scores import ReconstructionOptions, score_store

    return score_store(options.path, picked(ReconstructionOptions, options), progress=show_progress)


def probe(options) -> dict[str, float]:
    """What readers find in weights."""
    from wsrl.evaluation.store_probe import ProbeOptions, probe_store

    return probe_store(options.path, picked(ProbeOptions, options), progress=show_progress)


def generation(options) -> dict[str, float]:
    """Scores of sampled fields; draws ``closest.png`` beside the metrics."""
    from wsrl.evaluation.generation import GenerationOptions
    from wsrl.evaluation.generation_scores import evaluate_model

    closest = Path(options.out or Path(options.path) / METRICS_FILE).with_name("closest.png")
    made = picked(GenerationOptions, options)
    return evaluate_model(options.path, options.store, made, closest=closest, progress=show_progress)


ACTIONS: dict[str, Callable] = {
    "reconstruction": reconstruction,
    "probe": probe,
    "generation": generation,
    "structure": eval_structure.structure,
}
