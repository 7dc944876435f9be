"""Every field of a store of adapters in canonical gauge, as a new store."""

from pathlib import Path

from torch import Tensor

from wsrl.errors import UserError
from wsrl.fields.gauge import CANONICAL, canonical, factor_pairs
from wsrl.fields.layout import Layout
from wsrl.progress import ShowProgress, silent
from wsrl.store.directory import finalize
from wsrl.store.reader import WeightStore
from wsrl.store.rewriting import AlignedFields, Rewritten, create_like, refuse_itself, rewrite_fields


def canonicalise_fields(path: Path, out: Path, *, progress: ShowProgress = silent) -> AlignedFields:
    """Write the store ``out``: the fields of the one at ``path`` in the form of :mod:`wsrl.fields.gauge`.

    The functions stay as they are to rounding. Of all factors with one product those of the form are the smallest.

    Args:
        path: A finished store of adapters.
        out: The new store; made, or continued where an interrupted run left it.
        progress: Shows how many fields are done.

    Returns:
        Their number, and the mean sum of squares of the factors of a field before and after.

    Raises:
        UserError: The fields have no factors, or ``out`` is something else.
    """
    refuse_itself(path, out)
    with WeightStore.open(path) as store:
        layout = store.layout
        if not factor_pairs(layout):
            raise UserError(
                f"the fields of {path} are networks of their own, without factors: they have no gauge",
                allowed="a store of the kinds lora, lora_asym, mlora or mlora_asym",
                do="align their neurons with --template mean",
            )
        create_like(store, out, {"gauge": CANONICAL}, ["--gauge"])

        def rewritten(weights: dict[str, Tensor]) -> Rewritten:
            found = canonical(layout, weights)
            return Rewritten(found, factor_sizes(layout, weights), factor_sizes(layout, found))

        outcome = rewrite_fields(store, out, rewritten, progress)
    finalize(out)
    return outcome


def factor_sizes(layout: Layout, weights: dict[str, Tensor]) -> Tensor:
    """Sum of squares ``(N,)`` of all factors of fields ``(N, *shape)``."""
    names = [spec.name for pair in factor_pairs(layout) for spec in (pair.down, pair.up)]
    return sum(weights[name].double().square().sum((-2, -1)) for name in names)
