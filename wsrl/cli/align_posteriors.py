"""``wsrl align`` of two posterior files: the second moved to where the units of the first are, and the path between."""

import argparse
import sys
from pathlib import Path

from wsrl.errors import UserError

PERMUTATIONS, METRICS = "permutations.safetensors", "metrics.json"


def align_posteriors(options: argparse.Namespace) -> int:
    """Align two posteriors by means and deviations; write the moved one, its permutations and the metrics.

    With ``--data`` the marginalised barrier is measured, before and after, on its test split.
    """
    import torch
    from safetensors.torch import save

    from wsrl.cli.stage import claim_folder
    from wsrl.durable import write_bytes
    from wsrl.provenance import finish_run, write_json_atomic, write_run
    from wsrl.symmetry.matching.posteriors import align_posterior, squared_wasserstein
    from wsrl.training.variational import load_posterior, save_posterior

    if options.method != "weights":
        raise UserError(f"--method {options.method} is given for posteriors", allowed="--method weights")
    reference, moving = (load_posterior(path) for path in options.paths)
    spec, likelihood = _network(options, reference)
    generator = torch.Generator().manual_seed(options.seed)
    aligned, matching = align_posterior(spec, reference, moving, generator=generator, restarts=options.restarts)
    metrics = {
        "align.squared_wasserstein_before": squared_wasserstein(reference, moving),
        "align.squared_wasserstein_after": squared_wasserstein(reference, aligned),
        "align.objective": matching.objective,
    }
    out = Path(options.out)
    claim_folder(out, ("run.json",), "align")
    inputs = {"reference": Path(options.paths[0]), "moving": Path(options.paths[1])}
    write_run(out, f"wsrl align {' '.join(options.paths)}", vars(options), inputs=inputs, seed=options.seed)
    if likelihood is not None:
        metrics |= _barriers({"before": moving, "after": aligned}, reference, likelihood, options)
    save_posterior(out, aligned, {"reference": options.paths[0], "moving": options.paths[1], "seed": options.seed})
    tables = {name: table.clone().contiguous() for name, table in matching.permutation.items()}
    write_bytes(out / PERMUTATIONS, save(tables))
    write_json_atomic(out / METRICS, metrics)
    finish_run(out, **metrics)
    for name, value in metrics.items():
        if not name.rpartition(".")[2].isdigit():
            print(f"{name:<34} {value:.4f}")
    print(f"the aligned posterior, its permutations and {METRICS} are in {out}", file=sys.stderr)
    return 0


def _network(options: argparse.Namespace, reference):
    """The symmetry of the network, and with ``--data`` the log-likelihood of its test examples given weights."""
    from wsrl.cli.align_networks import fitted, made_network, open_examples, read_spec
    from wsrl.symmetry.matching.linear_stack import LinearStack
    from wsrl.symmetry.spec.spec import PermutationSpec

    network, example = made_network(options.network) if options.network else (None, None)
    spec = read_spec(options.spec) if options.spec else None
    if network is None and (spec is None or options.data):
        network = LinearStack(reference.means).eval()
    likelihood = None
    if options.data:
        network, examples = fitted(network, reference.means, open_examples(options.data, options.limit), spec)
        inputs, labels = examples.get("test", examples["train"])
        likelihood = _likelihood(network, inputs, labels)
        example = inputs[:2] if example is None else example
    if spec is None:
        example = _example(network, options) if example is None else example
        spec = PermutationSpec.from_module(network, example)
    return spec, likelihood


def _example(network, options: argparse.Namespace):
    """Inputs to trace a network on that was given without any."""
    import torch

    from wsrl.symmetry.matching.linear_stack import LinearStack

    if isinstance(network, LinearStack):
        return torch.zeros(2, network.get_submodule(network.order[0]).in_features)
    raise UserError(
        f"--network {options.network} gives no example inputs",
        allowed="a function that gives the module and inputs, --data, or --spec",
        do="return (module, inputs) from the function",
    )


def _likelihood(network, inputs, labels):
    """From weights to the log-probability of the true class of every example, ``(X,)``."""
    import torch
    from torch.func import functional_call

    from wsrl.symmetry.matching.barriers import AT_ONCE
    from wsrl.training.variational import classification_log_likelihood

    def log_likelihood(weights):
        outputs = [functional_call(network, weights, (part,)) for part in inputs.split(AT_ONCE)]
        return classification_log_likelihood(torch.cat(outputs), labels)

    return log_likelihood


def _barriers(posteriors: dict, reference, likelihood, options: argparse.Namespace) -> dict[str, float]:
    """Marginalised losses along the path to each posterior, and the barrier with its Monte-Carlo error, in nats."""
    from wsrl.symmetry.matching.posteriors import marginalised_path

    metrics = {}
    for when, posterior in posteriors.items():
        choice = {"num_points": options.points, "num_samples": options.samples, "seed": options.seed}
        path = marginalised_path(reference, posterior, likelihood, **choice)
        barrier = path.barrier()
        metrics[f"align.{when}.barrier"] = barrier.value
        metrics[f"align.{when}.barrier_stderr"] = barrier.standard_error
        metrics |= {f"align.{when}.loss.{point:03d}": float(loss) for point, loss in enumerate(path.losses)}
    return metrics
