"""What suits data by default: the size of a field and how it is fitted, by the grid and the channels of the signals.

The table of sizes is chosen by ``pipelines/resolution.py`` (record ``representations/resolution.json``). The rates
come from the sweep of ``pipelines/representations.py``; those of additive adapters and standalone networks are half of
the best, where no field fits badly. The prior's strength is chosen by ``pipelines/prior.py``.
"""

from dataclasses import dataclass, replace

from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fitting.fit_config import FitConfig
from wsrl.signals.form import SignalForm

Grid = tuple[int, ...] | None
TRADE = (
    "For more dB raise representation.rank (twice the rank: twice the parameters) or fit.steps, or set "
    "fit.prior_strength to 0; for smaller fields or faster fits lower the first two."
)
LEARNING_RATES = {
    "mlp": 8e-2,
    "mlp_asym": 8e-2,
    "lora": 4e-2,
    "lora_asym": 4e-2,
    "mlora": 2e-1,
    "mlora_asym": 2e-1,
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """What suits grids up to a size.

    Attributes:
        side: Points along the longer side, at most.
        width: Width of the base field.
        depth: Its hidden layers.
        num_frequencies: Frequencies of its encoding.
        frequency_scale: Their standard deviation, in cycles per unit of the coordinates.
        activation: Its activation.
        rank: Rank of an adapter for signals of one channel.
        colour_rank: Rank for signals of several channels.
        steps: Steps of a fit.
        interleave: Subsets that the points are dealt into, one for each step.
        rate: Share of the learning rates of ``LEARNING_RATES`` for multiplicative adapters: products of larger factors
            move further in a step.
        prior: Strength of the prior of multiplicative adapters of one channel; those with more parameters take less of
            it, so that all of them together are pulled as much. Measured for grids up to 32 points alone.
    """

    side: int
    width: int = 64
    depth: int = 3
    num_frequencies: int = 64
    frequency_scale: float
    activation: str = "silu"
    rank: int = 4
    colour_rank: int = 4
    steps: int
    interleave: int
    rate: float = 1.0
    prior: float = 0.0


SMALL = Size(side=12, width=32, num_frequencies=16, frequency_scale=0.4, steps=60, interleave=1, rate=0.25)
SCATTERED = Size(side=0, frequency_scale=0.5, activation="leaky_relu", steps=300, interleave=1)
SIZES = (
    SMALL,
    Size(
        side=32, num_frequencies=32, frequency_scale=2.2, colour_rank=8, steps=200, interleave=3, rate=0.75, prior=3e-6
    ),
    Size(side=64, depth=4, frequency_scale=3.0, rank=6, colour_rank=8, steps=400, interleave=8, rate=0.5),
    Size(side=128, depth=4, frequency_scale=3.5, rank=8, colour_rank=12, steps=400, interleave=12, rate=0.5),
    Size(side=256, depth=4, frequency_scale=6.0, rank=12, colour_rank=16, steps=600, interleave=16, rate=0.5),
)
"""By rising side; the last one serves larger grids as well."""


def size_for(grid: Grid) -> Size:
    """The size that suits a grid, or points on none."""
    if grid is None:
        return SCATTERED
    return next((size for size in SIZES if max(grid) <= size.side), SIZES[-1])


def is_small(grid: Grid) -> bool:
    """Whether a signal has few points, such as an 8x8 digit: there a field must be kept smooth between them."""
    return size_for(grid) is SMALL


def rank_for(form: SignalForm) -> int:
    """The rank of an adapter that suits signals."""
    size = size_for(form.grid)
    return size.rank if form.out_features == 1 else size.colour_rank


def default_field(form: SignalForm) -> FieldConfig:
    """A trunk for the base field: wider, with more and higher frequencies, for finer grids."""
    size = size_for(form.grid)
    return FieldConfig(
        width=size.width,
        depth=size.depth,
        num_frequencies=size.num_frequencies,
        frequency_scale=size.frequency_scale,
        activation=size.activation,
    )


def default_representation(kind: str, form: SignalForm) -> RepresentationConfig:
    """The representation of a kind; standalone networks have about as many parameters as adapters."""
    rank = rank_for(form)
    standalone = RepresentationConfig().field
    # Each hidden layer of the base field has factors (rank, in) and (out, rank).
    hidden = default_field(form).layer_shapes(form.in_features, form.out_features)[:-1]
    width = _width(standalone, rank * sum(map(sum, hidden)), form)
    return RepresentationConfig(kind=kind, rank=rank, field=replace(standalone, width=width))


def _width(standalone: FieldConfig, parameters: int, form: SignalForm) -> int:
    """The width at which a standalone network has the number of parameters that is nearest to the one asked for."""

    def distance(width: int) -> int:
        shapes = replace(standalone, width=width).layer_shapes(form.in_features, form.out_features)
        return abs(sum(fan_out * (fan_in + 1) for fan_out, fan_in in shapes) - parameters)

    return min(range(1, 512), key=distance)


def default_fit(kind: str, form: SignalForm) -> FitConfig:
    """Steps, rate and prior of a kind; on small grids few steps, which stay near the base, smooth between points."""
    size, rate = size_for(form.grid), LEARNING_RATES[kind]
    if form.grid is None:
        return FitConfig(steps=size.steps, learning_rate=rate, beta2=0.95, points_per_step=1536)
    if size is SMALL:
        return FitConfig(steps=size.steps, learning_rate=rate * size.rate)
    # A part of the points in each step and a short memory in Adam: on Fashion-MNIST the quality and the readings of all
    # points in each step, in a third of the time.
    if kind.startswith("mlora"):
        how = {"learning_rate": rate * size.rate, "prior_strength": size.prior * size.rank / rank_for(form)}
        return FitConfig(steps=size.steps, beta2=0.95, interleave=size.interleave, **how)
    if size.side <= 32:
        return FitConfig(steps=size.steps, learning_rate=rate)
    return FitConfig(steps=size.steps, learning_rate=rate, beta2=0.95, interleave=size.interleave)


def sizes_explained(representation: Representation, fit: FitConfig, form: SignalForm) -> str:
    """Which sizes of a store's fields are those of the table and which were asked for, and how to change them.

    Args:
        representation: What the weights are.
        fit: How the fields are fitted.
        form: That of the signals.

    Returns:
        Sentences for a data card.
    """
    config, field = representation.config, representation.field_config
    usual, trunk, how = default_representation(config.kind, form), default_field(form), default_fit(config.kind, form)
    values = {"steps": (fit.steps, how.steps), "prior strength": (fit.prior_strength, how.prior_strength)}
    if config.is_adapter:
        values |= {"rank": (config.rank, usual.rank)}
        values |= {f"{key} of the base field": (getattr(field, key), getattr(trunk, key)) for key in ("width", "depth")}
    else:
        values |= {"width": (field.width, usual.field.width), "depth": (field.depth, usual.field.depth)}
    parts = [
        f"{name} {value:g} ({'the default' if value == default else f'asked for; the default is {default:g}'})"
        for name, (value, default) in values.items()
    ]
    return f"Sizes: {', '.join(parts)}. The defaults are those for {described(form)}. {TRADE}"


def described(form: SignalForm) -> str:
    """The signals that a size is for, in words."""
    if form.grid is None:
        return "points on no grid"
    side = size_for(form.grid).side
    extent = f"of up to {side} points a side" if max(form.grid) <= side else f"of more than {side} points a side"
    return f"grids {extent} and {'one channel' if form.out_features == 1 else 'several channels'}"
