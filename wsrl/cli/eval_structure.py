"""``wsrl eval structure``: what fits of the same signals from different starts have in common."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from wsrl.cli.display import say
from wsrl.errors import UserError

if TYPE_CHECKING:
    from wsrl.evaluation.structure_fits import Fits
    from wsrl.store import WeightStore

NUM, NUM_POINTS = 50, 25
OUT = "structure.json"
OF_DATA = ("base", "representation", "lambdas", "config", "source")


def add_arguments(action: argparse.ArgumentParser) -> None:
    """Add the options of ``wsrl eval structure``."""
    add = action.add_argument
    action.epilog = (
        "DATA is fitted from one start and from others that are lambda away, as wsrl build would fit it. Of a STORE "
        "the effective rank and the cosine similarity between its fields are told; --with a second one of the same "
        "signals, the fields of either are compared. Two stores with independent starts and equal masks come from "
        "wsrl build --representation.start random with two values of --fit.seed."
    )
    add("--with", dest="partner", metavar="STORE", help="STORE: a second one of the same signals and layout")
    add("--num", type=int, default=NUM, help="signals to measure on, at most")
    add("--points", type=int, default=NUM_POINTS, help="points of the path between two fields")
    add("--base", metavar="DIR", help="DATA: the base field of adapters")
    add("--representation", metavar="KIND", nargs="+", help="DATA: kinds to fit; all six, without --base mlp, mlp_asym")
    add("--lambdas", metavar="L", type=float, nargs="+", help="DATA: distances of the starts, from 0 to 1")
    add("--config", metavar="FILE", help="DATA: a configuration file of wsrl build, with representation and fit")
    add("--source", metavar="OPTIONS", help="DATA: options of the source, such as '{split: test}'")


def structure(options: argparse.Namespace) -> tuple[str, dict]:
    """The measures of a store, of two stores, or of fits of the data that are made for it."""
    from wsrl.cli.eval import positive

    positive(options.num, "--num")
    if options.points < 3:
        raise UserError(f"--points is {options.points}", allowed="3 or more", do="choose another --points")
    if not (Path(options.path) / "manifest.json").is_file():
        return "structure", of_data(options)
    for name in OF_DATA:
        if getattr(options, name) is not None:
            wrong = f"--{name} is given, but {options.path} is a store, whose fields are fitted"
            raise UserError(wrong, allowed="--with STORE, --num, --points", do="leave it out, or give the data")
    return "structure", of_store(options) if options.partner is None else of_stores(options)


def of_data(options: argparse.Namespace) -> dict[str, float]:
    """Measures by kind and distance, of fits that are made now; where ``--out`` is missing it becomes a file here."""
    from wsrl.cli.stage import prepare_signals
    from wsrl.evaluation.structure_fits import LAMBDAS, read_usable
    from wsrl.fields.representation import KINDS

    if options.partner is not None:
        raise UserError(f"--with is given, but {options.path} is no store", do="give two stores, or leave out --with")
    options.out = options.out or OUT
    kinds = options.representation or [kind for kind in KINDS if options.base or "lora" not in kind]
    metrics, signals = {}, None
    for kind in dict.fromkeys(kinds):
        representation, config, source = opened(kind, options)
        if signals is None:
            indices = range(min(options.num, len(source)))
            prepare_signals(source, indices)
            signals = read_usable(source, indices)
        found = measured(representation, signals, config, tuple(options.lambdas or LAMBDAS), options)
        metrics |= {f"{kind}.{name}": value for name, value in found.items()}
    return metrics


def opened(kind: str, options: argparse.Namespace) -> tuple:
    """The representation of a kind and how it is fitted, as ``wsrl build`` would choose them, and the source."""
    from wsrl.cli import build_options, stage
    from wsrl.fields.base import BaseField
    from wsrl.fields.representation import Representation

    argv = [options.path, "--out", "none", "--representation", kind]
    argv += [f"--{name}={value}" for name in ("config", "source") if (value := getattr(options, name)) is not None]
    parser = build_options.make_parser("")
    parsed, source = stage.parse_for_data(parser, build_options.spell_out_kind(argv), build_options.data_defaults)
    made = parser.instantiate(parsed)
    base = BaseField.from_pretrained(options.base) if options.base and made.representation.is_adapter else None
    say(f"{made.representation}, {made.fit}")
    return Representation.build(made.representation, base, **source.form.sizes), made.fit, source


def measured(representation, signals: list, config, lambdas: tuple[float, ...], options) -> dict[str, float]:
    """Measures by distance, of fits of one kind that are made now."""
    from wsrl.cli.display import show_progress
    from wsrl.evaluation.structure_fits import fit_from, measure_starts, starts_of

    with show_progress(f"{representation.config.kind}: fields", len(signals) * len({0.0, *lambdas})) as shown:

        def fitted(distance: float) -> Fits:
            start = starts_of(representation, distance, options.seed)
            return fit_from(representation, signals, config, start, shown.advance)

        sizes = {"seed": options.seed, "num_points": options.points}
        return measure_starts(representation, signals, fitted, lambdas, **sizes)


def of_store(options: argparse.Namespace) -> dict[str, float]:
    """Effective rank of the fields of a store, and the cosine similarity of fields of different signals."""
    from wsrl.cli.eval import some_rows
    from wsrl.evaluation.structure import cosine_between, mean_effective_rank, with_band
    from wsrl.store import WeightStore

    with WeightStore.open(options.path) as store:
        if not len(store):
            raise UserError(f"{options.path} holds no fields", do="build some")
        weights = weights_of(store, some_rows(store, options.num, options.seed))
        ranks = mean_effective_rank(store.representation, weights).numpy()
        metrics = {"num": len(ranks), **with_band("effective_rank", ranks, options.seed)}
        if len(ranks) > 1:
            cosines = cosine_between(store.representation, weights).numpy()
            metrics |= with_band("cosine_between_signals", cosines, options.seed)
    return metrics


def of_stores(options: argparse.Namespace) -> dict[str, float]:
    """Measures of the pairs of fields that two stores hold of the same signals."""
    from wsrl.cli.eval import some_rows
    from wsrl.evaluation.features import signals_of_rows
    from wsrl.evaluation.structure import banded
    from wsrl.evaluation.structure_fits import compare_fits
    from wsrl.store import WeightStore
    from wsrl.store.source import open_store_source

    with WeightStore.open(options.path) as store, WeightStore.open(options.partner) as partner:
        check_alike(store, partner)
        there = set(partner.ids)
        rows = [row for row, name in enumerate(store.ids) if name in there]
        if not rows:
            wrong = f"{options.path} and {options.partner} have no signal in common"
            raise UserError(wrong, allowed="two stores of the same data", do="build the second one from the same data")
        rows = [rows[place] for place in some_rows(rows, options.num, options.seed)]
        signals = list(signals_of_rows(store, open_store_source(store, options.data), rows))
        fits = [stored_fits(each, [signal.id for signal in signals]) for each in (store, partner)]
        measures = compare_fits(store.representation, signals, *fits, options.points)
    return {"num": len(signals), **banded(measures, options.seed)}


def check_alike(store: WeightStore, partner: WeightStore) -> None:
    """Refuse two stores whose weights don't mean the same.

    Raises:
        UserError: They have different layouts (masks are part of them) or base fields.
    """
    same_layout = json.dumps(store.layout.to_json()) == json.dumps(partner.layout.to_json())
    if same_layout and store.manifest["base_sha256"] == partner.manifest["base_sha256"]:
        return
    what = "base fields" if same_layout else "layouts or masks"
    raise UserError(
        f"{store.directory} and {partner.directory} have different {what}",
        allowed="two stores of one representation, with the same representation.seed",
        do="build the second one with --representation.start random and another --fit.seed",
    )


def stored_fits(store: WeightStore, ids: list[str]) -> Fits:
    """Fields of a store and what they were fitted from; imported ones count as fitted from zero."""
    import torch

    from wsrl.evaluation.structure_fits import Fits
    from wsrl.fields.foreign import ForeignRepresentation

    representation, rows = store.representation, [store.row(name) for name in ids]
    if isinstance(representation, ForeignRepresentation):
        start = {spec.name: torch.zeros(spec.shape) for spec in representation.layout}
    elif representation.config.start == "shared":
        start = representation.initial()
    else:
        seeds = [torch.Generator().manual_seed(int(store.record(row)["seed"])) for row in rows]
        starts = [representation.initial(seed) for seed in seeds]
        start = {name: torch.stack([each[name] for each in starts]) for name in starts[0]}
    return Fits(ids, weights_of(store, rows), start)


def weights_of(store: WeightStore, rows) -> dict:
    """Weights ``(N, *shape)`` of few fields of a store."""
    import torch

    fields = [store[int(row)] for row in rows]
    return {name: torch.stack([field[name] for field in fields]) for name in fields[0]}
