"""``wsrl align A.safetensors B.safetensors``: one network moved to where the units of another are, and their path."""

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

from wsrl.cli.align import METHODS
from wsrl.errors import UserError

ALIGNED, PERMUTATIONS, METRICS = "aligned.safetensors", "permutations.safetensors", "metrics.json"


def align_network_files(options: argparse.Namespace) -> int:
    """Align the second file with the first; write the weights, the permutations and the metrics, and print a table."""
    import torch

    from wsrl.cli.stage import claim_folder
    from wsrl.provenance import finish_run, write_run
    from wsrl.symmetry.matching.alignment import align_networks
    from wsrl.symmetry.matching.alignment_files import read_network
    from wsrl.symmetry.matching.matching import check_same

    assert options.method in METHODS
    first, second = (read_network(path) for path in options.paths)
    check_same(first, [second])
    network, example = made_network(options.network) if options.network else (None, None)
    spec = read_spec(options.spec) if options.spec else None
    examples = open_examples(options.data, options.limit) if options.data else {}
    network, examples = fitted(network, first, examples, spec)
    out = Path(options.out)
    claim_folder(out, ("run.json",), "align")
    inputs = {"reference": Path(options.paths[0]), "moving": Path(options.paths[1])}
    command = f"wsrl align {' '.join(options.paths)} --out {options.out}"
    write_run(out, command, vars(options), inputs=inputs, seed=options.seed)
    found = align_networks(
        first,
        second,
        network=network,
        spec=spec,
        example_inputs=example,
        data=examples.get("train"),
        heldout=examples.get("test"),
        method=options.method,
        num_points=options.points,
        restarts=options.restarts,
        generator=torch.Generator().manual_seed(options.seed),
    )
    metrics = summarised(found)
    write(found, metrics, out)
    finish_run(out, **metrics)
    show(found, metrics)
    print(f"the aligned network, its permutations and {METRICS} are in {out}", file=sys.stderr)
    return 0


def made_network(name: str):
    """What ``MODULE:FUNCTION`` gives: a module, alone or with example inputs.

    Raises:
        UserError: There is no such function, or it gives something else.
    """
    from torch import nn

    allowed = "MODULE:FUNCTION, a function without arguments that gives a torch module, or one and example inputs"
    module, _, function = name.partition(":")
    if not module or not function:
        raise UserError(f"--network is {name!r}", allowed=allowed, do="write it with a colon, as networks:make")
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module.removesuffix(".py").replace("/", "."))
    except ImportError as error:
        raise UserError(
            f"--network: {error}", allowed=allowed, do="run the command in the folder of the module, or install it"
        ) from error
    finally:
        sys.path.remove(os.getcwd())
    make = getattr(found, function, None)
    if not callable(make):
        raise UserError(f"--network: {module} has no function {function!r}", allowed=allowed, do="check the name")
    made = make()
    made, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(made, nn.Module):
        raise UserError(f"--network: {name} gives {type(made).__name__}", allowed=allowed, do="return the module")
    return made.eval(), example


def read_spec(path: str):
    """A permutation spec from the JSON of ``PermutationSpec.to_json``.

    Raises:
        UserError: The file is no such JSON.
    """
    from wsrl.symmetry.spec.spec import PermutationSpec

    allowed = 'JSON as PermutationSpec.to_json gives it: {"axes": {tensor: [...]}, "sizes": {permutation: number}, ...}'
    try:
        return PermutationSpec.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no permutation spec ({error!r})", allowed=allowed, do="mend the file") from error


def open_examples(data: str, limit: int | None) -> dict:
    """Pictures ``(N, C, H, W)`` and class numbers ``(N,)`` of each split; of a source without splits all are ``train``.

    Raises:
        UserError: The source has no labels, or holds no pictures.
    """
    import torch

    from wsrl.signals import open_source

    source = open_source(data)
    if source.form.grid is None or not source.label_names:
        lacks = "labels" if source.form.grid is not None else "pictures"
        raise UserError(
            f"{data} has no {lacks}", allowed="a source of pictures with labels", do="choose another --data"
        )
    rows: dict[str, list[int]] = {}
    for row, split in enumerate(source.splits()):
        rows.setdefault(split or "train", []).append(row)
    numbers, found = {name: number for number, name in enumerate(class_order(source))}, {}
    for split, chosen in rows.items():
        signals = [source[row] for row in chosen[:limit]]
        values = torch.stack([signal.values for signal in signals])  # (N, H W, C)
        pictures = values.transpose(1, 2).reshape(len(values), -1, *source.form.grid)
        found[split] = (pictures.float(), torch.tensor([numbers[signal.label] for signal in signals]))
    return found if "train" in found else {"train": next(iter(found.values())), **found}


def class_order(source) -> tuple[str, ...]:
    """Classes in the order of the numbers that the data's authors gave them, which networks are trained with."""
    from wsrl.signals.sources import fashion_mnist

    return fashion_mnist.CLASSES if source.name == "fashion-mnist" else source.label_names


def fitted(network, weights: dict, examples: dict, spec) -> tuple:
    """The network, and examples in the form that it takes: pictures, or flat ones ``(N, C H W)``.

    Raises:
        UserError: It takes neither.
    """
    import torch

    from wsrl.symmetry.matching.barriers import load_weights
    from wsrl.symmetry.matching.linear_stack import LinearStack

    if network is None and (examples or spec is None):
        network = LinearStack(weights).eval()
    if network is not None:
        load_weights(network, weights)
    if not examples:
        return network, examples
    reason = ""
    for flat in (False, True):
        shaped = {split: (x.flatten(1) if flat else x, y) for split, (x, y) in examples.items()}
        try:
            with torch.no_grad():
                outputs = network(shaped["train"][0][:2])
        except (RuntimeError, ValueError) as error:  # what torch raises for a shape
            reason = str(error).splitlines()[0]
            continue
        classes = 1 + max(int(y.max()) for _, y in examples.values())
        if outputs.ndim != 2 or outputs.shape[1] < classes:
            reason = f"it gives {tuple(outputs.shape)} for 2 pictures of {classes} classes"
            continue
        return network, shaped
    shape = tuple(examples["train"][0].shape[1:])
    raise UserError(
        f"the network does not take the pictures of --data ({reason})",
        allowed=f"networks from pictures {shape}, or these flattened, to a number for each class",
        do="choose another --data, or a network that fits",
    )


def summarised(found) -> dict[str, float]:
    """Plain numbers by dotted key."""
    metrics = {"align.objective": found.objective, "align.agreement_before": found.objective_before}
    metrics["align.moved_units"] = sum(
        int((table != table.new_tensor(range(table.shape[-1]))).sum()) for table in found.permutation.values()
    )
    metrics["align.units"] = sum(table.numel() for table in found.permutation.values())
    for when, path in (("before", found.before), ("after", found.after)):
        if path is None:
            continue
        metrics |= {f"align.{when}.barrier": path.barrier, f"align.{when}.accuracy_barrier": path.accuracy_barrier}
        for point, (loss, accuracy) in enumerate(zip(path.losses, path.accuracies)):
            metrics[f"align.{when}.loss.{point:03d}"] = float(loss)
            metrics[f"align.{when}.accuracy.{point:03d}"] = float(accuracy)
    return metrics


def write(found, metrics: dict, out: Path) -> None:
    """Write what was found, each file whole or not at all."""
    from safetensors.torch import save

    from wsrl.provenance import write_json_atomic
    from wsrl.store.durable import write_bytes

    write_bytes(out / ALIGNED, save({name: tensor.contiguous() for name, tensor in found.aligned.items()}))
    tables = {name: tensor.clone().contiguous() for name, tensor in found.permutation.items()}
    write_bytes(out / PERMUTATIONS, save(tables))
    write_json_atomic(out / METRICS, metrics)


def show(found, metrics: dict) -> None:
    """Print the path as a table, and the summary below it."""
    if found.after is not None:
        print(f"{'t':>6} {'loss before':>12} {'loss after':>12} {'accuracy before':>16} {'accuracy after':>15}")
        places = len(found.after.losses) - 1
        columns = (found.before.losses, found.after.losses, found.before.accuracies, found.after.accuracies)
        for point, (a, b, c, d) in enumerate(zip(*columns)):
            print(f"{point / places:>6.3f} {a:>12.4f} {b:>12.4f} {c:>16.4f} {d:>15.4f}")
    for name, value in metrics.items():
        if not name.rpartition(".")[2].isdigit():
            print(f"{name:<32} {value if isinstance(value, int) else format(value, '.4f')}")
