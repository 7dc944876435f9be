"""Every field of a store in the form nearest to a template, as a new store.

Neurons or rank components change places, signs and phases; the functions stay. The new store has the ids, labels,
splits, metrics and base field of the old one, and is continued where it was interrupted.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from wsrl.durable import locked, write_bytes
from wsrl.errors import UserError
from wsrl.fields.layout import Layout
from wsrl.fields.representation import Representation
from wsrl.fields.tensor_files import as_weights, match_names, read_tensors
from wsrl.options import POSITIVE, at_least, check, option
from wsrl.progress import ShowProgress, silent
from wsrl.store.directory import finalize
from wsrl.store.reader import WeightStore
from wsrl.store.rewriting import AlignedFields, Rewritten, create_like, refuse_itself, rewrite_fields
from wsrl.symmetry.fields.canonical import Aligner, mean_template
from wsrl.symmetry.fields.signed import SignedSymmetry

TEMPLATE = "template.safetensors"
MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class AlignConfig:
    """How the fields of a store are aligned.

    Attributes:
        template: What to: the id of a field, ``mean`` for the mean of aligned fields, or a ``.safetensors`` file of
            weights, such as the one that is written into every aligned store.
        num_fields: Fields of which the mean is taken: of the split ``train`` where there is one, drawn by the seed.
        rounds: Rounds of aligning and averaging that make the mean.
        first_layers: Factor on the squared distance of each hidden layer of a standalone field, relative to the next
            one, so that the neurons of the first layer come to their places first.
        signs: Move the signs of units as well as their places.
        phases: Move the phases of sine neurons too; this rounds their biases.
        seed: Seed of the choice of the fields for the mean.

    Raises:
        UserError: A number is out of range.
    """

    template: str = MEAN
    num_fields: int = option(1024, at_least(1))
    rounds: int = option(4, at_least(1))
    first_layers: float = option(100.0, POSITIVE)
    signs: bool = True
    phases: bool = True
    seed: int = 0

    def __post_init__(self):
        check(self)


def align_fields(path: Path, out: Path, config: AlignConfig, *, progress: ShowProgress = silent) -> AlignedFields:
    """Write the store ``out``: the fields of the one at ``path``, aligned.

    Args:
        path: A finished store.
        out: The new store; made, or continued where it is of the same alignment.
        config: What to align to, and how.
        progress: Shows how many fields the template is taken of, and how many are aligned.

    Returns:
        Their number, and the mean squared distance to the template before and after.

    Raises:
        UserError: No permutation leaves the fields as they are, the template is unknown, or ``out`` is something else.
    """
    refuse_itself(path, out)
    with WeightStore.open(path) as store:
        if not store.manifest["representation"]:
            raise UserError(f"{path} doesn't say what its fields are", allowed="a store that `wsrl build` wrote")
        symmetry = SignedSymmetry.of(store.representation, signs=config.signs, phases=config.phases)
        factors = depth_factors(store.representation, config.first_layers)
        find_template = _template_finder(store, symmetry, factors, config, progress)
        _create(store, out, config)
        template = _kept_template(out, store, find_template)
        aligner = Aligner(symmetry, template, importance=factors)

        def moved(weights: dict[str, Tensor]) -> Rewritten:
            # The nearest member of each field's class; moving weights leaves the function as it is.
            aligned = aligner.align(weights)
            return Rewritten(symmetry.apply(weights, aligned.moves), aligner.distance(weights), aligned.distances)

        outcome = rewrite_fields(store, out, moved, progress)
    finalize(out)
    return outcome


def depth_factors(representation: Representation, factor: float) -> dict[str, float]:
    """Factor on the squared distance of each tensor: ``factor`` times that of the next layer up to the last hidden one.

    The layers of adapters don't depend on one another, and all count the same.
    """
    groups = representation.layout.groups()
    last_hidden = len(groups) - 2
    factors: dict[str, float] = {}
    for depth, tensors in enumerate(groups.values()):
        steps = 0 if representation.config.is_adapter else max(0, last_hidden - depth)
        factors |= {tensor.name: factor**steps for tensor in tensors}
    return factors


def _template_finder(
    store: WeightStore,
    symmetry: SignedSymmetry,
    factors: dict[str, float],
    config: AlignConfig,
    progress: ShowProgress,
) -> Callable[[], dict[str, Tensor]]:
    """A function that gives the template's weights; what cannot be used is refused at once."""
    if config.template.endswith(".safetensors"):
        weights = _read_template(Path(config.template), store.layout)
        return lambda: weights
    if config.template != MEAN:
        row = store.row(config.template)
        return lambda: store[row]
    rows = _rows_of_mean(store, config)
    return lambda: _mean(store, rows, symmetry, factors, config.rounds, progress)


def _rows_of_mean(store: WeightStore, config: AlignConfig) -> np.ndarray:
    """Sorted rows of the fields that the mean is taken of."""
    splits = store.splits()
    rows = np.flatnonzero(splits == "train") if (splits == "train").any() else np.arange(len(store))
    if not len(rows):
        raise UserError(f"the store {store.directory} is empty", allowed="a store with fields")
    return np.sort(np.random.default_rng(config.seed).permutation(rows)[: config.num_fields])


def _mean(
    store: WeightStore,
    rows: np.ndarray,
    symmetry: SignedSymmetry,
    factors: dict[str, float],
    rounds: int,
    progress: ShowProgress,
) -> dict[str, Tensor]:
    """The mean of the fields of some rows, which are read anew in every round."""
    taken = np.zeros(len(store), dtype=bool)
    taken[rows] = True
    names = [spec.name for spec in store.layout]
    with progress("template", rounds * len(rows)) as shown:

        def batches() -> Iterator[dict]:
            for block in store.shards.blocks(taken):
                table = store.shards.read(block)
                weights = {name: torch.from_numpy(table[f"weights/{name}"]) for name in names}
                yield weights
                shown.advance(len(weights[names[0]]))

        return mean_template(symmetry, store[int(rows[0])], batches, rounds=rounds, importance=factors)


def _read_template(path: Path, layout: Layout) -> dict[str, Tensor]:
    """The weights ``shape`` of a file, checked against a layout."""
    if not path.is_file():
        raise UserError(f"there is no template {path}", allowed="a safetensors file of weights", do="check the path")
    tensors = match_names(read_tensors(path), {spec.name: spec.name for spec in layout}, (), path.name)
    return as_weights(tensors, layout, path.name)


def _create(store: WeightStore, out: Path, config: AlignConfig) -> None:
    """Make the new store, or check that the one there is of the same alignment."""
    told = asdict(config)
    if config.template.endswith(".safetensors"):
        told |= {"template_sha256": hashlib.sha256(Path(config.template).read_bytes()).hexdigest()}
    options = ["--template", config.template, "--seed", str(config.seed), "--limit", str(config.num_fields)]
    create_like(store, out, told, options)


def _kept_template(out: Path, store: WeightStore, find_template: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The template of the new store: what an interrupted run has written there, or else a new one, which is written."""
    path = out / TEMPLATE
    with locked(out / f".{TEMPLATE}.lock"):
        if not path.exists():
            weights = {name: tensor.contiguous() for name, tensor in find_template().items()}
            write_bytes(path, save(weights))
        return _read_template(path, store.layout)
