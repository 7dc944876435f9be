"""``wsrl align A.safetensors B.safetensors``: one network moved to where the units of another are, and their path."""

import importlib
import os
import sys
from pathlib import Path

from wsrl.errors import UserError
from wsrl.provenance import METRICS_FILE, claim_folder, finish_run, write_json_atomic, write_run

ALIGNED, PERMUTATIONS = "aligned.safetensors", "permutations.safetensors"
NETWORK = "MODULE:FUNCTION, a function without arguments that gives a torch module, or one and example inputs"


def align_network_files(options) -> int:
    """Align the second file with the first; write the weights, the permutations and the metrics, and print a table."""
    import torch

    from wsrl.symmetry.matching.alignment import align_networks
    from wsrl.symmetry.matching.alignment_files import read_network, save_tensors
    from wsrl.symmetry.matching.barriers import load_weights
    from wsrl.symmetry.matching.problem import check_same

    first, second = (read_network(path) for path in options.paths)
    check_same(first, [second])
    known, examples = read_examples(options, first, read_symmetry(options))
    if known["network"] is not None:
        load_weights(known["network"], first)
    out = start_run(options)
    choice = {"method": options.method, "num_points": options.points, "restarts": options.restarts}
    choice |= {"data": examples.get("train"), "heldout": examples.get("test")}
    alignment = align_networks(first, second, **known, **choice, generator=torch.Generator().manual_seed(options.seed))
    metrics = alignment.metrics()
    save_tensors(out / ALIGNED, alignment.aligned)
    finish(out, alignment.permutation, metrics)
    show(alignment, metrics)
    print(f"the aligned network, its permutations and {METRICS_FILE} are in {out}", file=sys.stderr)
    return 0


def read_symmetry(options) -> dict:
    """What the options say of the symmetry: ``network``, ``example_inputs`` and ``spec``, each None if not given."""
    from wsrl.symmetry.matching.alignment_files import read_spec

    network, example = made_network(options.network) if options.network else (None, None)
    return {"network": network, "example_inputs": example, "spec": read_spec(options.spec) if options.spec else None}


def read_examples(options, weights: dict, known: dict) -> tuple[dict, dict]:
    """The network of what is known, with weights, and the labelled pictures of ``--data`` in the form it takes."""
    from wsrl.signals import open_source
    from wsrl.signals.pictures.labelled import labelled_pictures
    from wsrl.symmetry.matching.examples import fit_examples
    from wsrl.symmetry.matching.linear_stack import LinearStack

    if not options.data:
        is_stack = known["network"] is None and known["spec"] is None
        return known | ({"network": LinearStack(weights).eval()} if is_stack else {}), {}
    pictures = labelled_pictures(open_source(options.data), options.limit)
    network, examples = fit_examples(known["network"], weights, pictures)
    return known | {"network": network}, examples


def start_run(options) -> Path:
    """The output folder, with the record of the run."""
    out = Path(options.out)
    claim_folder(out, ("run.json",), "align")
    inputs = dict(zip(("reference", "moving"), map(Path, options.paths)))
    command = f"wsrl align {' '.join(options.paths)} --out {options.out}"
    write_run(out, command, vars(options), inputs=inputs, seed=options.seed)
    return out


def finish(out: Path, permutation: dict, metrics: dict[str, float]) -> None:
    """Write the permutations and the metrics of a run, and complete its record."""
    from wsrl.symmetry.matching.alignment_files import save_tensors

    save_tensors(out / PERMUTATIONS, permutation)
    write_json_atomic(out / METRICS_FILE, metrics)
    finish_run(out, **metrics)


def made_network(name: str):
    """What ``MODULE:FUNCTION`` gives: a module, alone or with example inputs.

    Raises:
        UserError: There is no such function, or it gives something else.
    """
    from torch import nn

    module, _, function = name.partition(":")
    if not module or not function:
        raise UserError(f"--network is {name!r}", allowed=NETWORK, do="write it with a colon, as networks:make")
    make = getattr(imported_here(module), function, None)
    if not callable(make):
        raise UserError(f"--network: {module} has no function {function!r}", allowed=NETWORK, do="check the name")
    made = make()
    made, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(made, nn.Module):
        raise UserError(f"--network: {name} gives {type(made).__name__}", allowed=NETWORK, do="return the module")
    return made.eval(), example


def imported_here(module: str):
    """A module of the working folder, or an installed one."""
    sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(module.removesuffix(".py").replace("/", "."))
    except ImportError as error:
        raise UserError(
            f"--network: {error}", allowed=NETWORK, do="run the command in the folder of the module, or install it"
        ) from error
    finally:
        sys.path.remove(os.getcwd())


def show(alignment, metrics: dict) -> None:
    """Print the path as a table, and the summary below it."""
    if alignment.after is not None:
        print(f"{'t':>6} {'loss before':>12} {'loss after':>12} {'accuracy before':>16} {'accuracy after':>15}")
        steps = len(alignment.after.losses) - 1
        columns = (
            alignment.before.losses,
            alignment.after.losses,
            alignment.before.accuracies,
            alignment.after.accuracies,
        )
        for point, (a, b, c, d) in enumerate(zip(*columns)):
            print(f"{point / steps:>6.3f} {a:>12.4f} {b:>12.4f} {c:>16.4f} {d:>15.4f}")
    for name, value in metrics.items():
        if not name.rpartition(".")[2].isdigit():
            print(f"{name:<32} {value if isinstance(value, int) else format(value, '.4f')}")
