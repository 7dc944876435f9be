"""The description of a network in a small YAML file: what the weights in files of others mean.

See ``EXAMPLE``. ``wsrl export`` writes one beside the files, in which everything stands as the store knows it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from wsrl.errors import UserError
from wsrl.fields.foreign import MORE_ACTIVATIONS, Convention
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig

DESCRIPTION_FILE = "network.yaml"
EXAMPLE = """\
kind: mlp                       # or, with a base field, lora, mlora, ...: as in wsrl build
in_features: 2
out_features: 1
field: {width: 32, depth: 2, encoding: identity, activation: sine, omega: 30, omega_hidden: 30}
                                # depth: hidden layers; omega_hidden: 1 where only the first layer has omega;
                                # activation: sine, relu, leaky_relu, silu, tanh, gelu, elu
coordinates: {order: down_right, range: [-1, 1], ends: corners}
                                # or right_down; ends: corners (linspace from end to end) or centres of the pixels
values: {range: [-1, 1], final: none}   # what the network gives for black and white; final: sigmoid, tanh, clamp
signal: {grid: [28, 28]}        # height, width
names: {"net.{i}.linear.weight": "layers.{i}.weight"}   # only where the names are no plain stack of layers
inside: g_ema                   # key of the state_dict in each file, only where it is not found
ignore: [step]                  # tensors in the files that are no weights
"""
_CONFIG = tuple(config.name for config in fields(RepresentationConfig) if config.name != "field")
_SIZES = ("in_features", "out_features")
_OWN = ("field", "coordinates", "values", "signal", "names", "inside", "ignore", "convention")
_ORDERS = {"down_right": (), "right_down": (1, 0)}


@dataclass(frozen=True, kw_only=True)
class Network:
    """What the files hold, apart from the numbers.

    Attributes:
        representation: How weights become a field.
        grid: Height and width of the signals, or None.
        names: From names in the files to ours; empty to guess them.
        inside: Key of the state_dict in the files, or None.
        ignore: Names in the files that are no weights.
    """

    representation: Representation
    grid: tuple[int, int] | None = None
    names: Mapping[str, str]
    inside: str | None = None
    ignore: tuple[str, ...] = ()


def read_network(path: Path, base: BaseField | None = None) -> Network:
    """The network that a file describes.

    Args:
        path: A YAML file as ``EXAMPLE``.
        base: The base field of adapters.

    Raises:
        UserError: The file is no such description; the message names the key.
    """
    import yaml

    try:
        described = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}", do="see wsrl import --help") from error
    try:
        return _network(_section(described, (*_CONFIG, *_SIZES, *_OWN), "the description"), base)
    except UserError as error:
        raise UserError(
            f"{path}: {error.wrong}", allowed=error.allowed or "see wsrl import --help", do=error.do or "mend it"
        ) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path}: {error}", allowed="values as in wsrl import --help", do="mend them") from error


def describe(representation: Representation, grid: tuple[int, ...] | None) -> str:
    """The YAML from which :func:`read_network` makes an equal representation."""
    import yaml

    signal = {"signal": {"grid": list(grid)}} if grid else {}
    return yaml.safe_dump({**representation.to_dict(), **signal}, sort_keys=False)


def _section(value: object, allowed: tuple[str, ...], name: str) -> dict:
    """A mapping with known keys."""
    if not isinstance(value, Mapping):
        raise UserError(f"{name} is {value!r}", allowed=f"keys {', '.join(allowed)}", do="see wsrl import --help")
    unknown = [str(key) for key in value if key not in allowed]
    if unknown:
        raise UserError(f"{name} has the unknown key {unknown[0]}", allowed=", ".join(allowed), do="mend it")
    return dict(value)


def _network(described: dict, base: BaseField | None) -> Network:
    # what is ours alone; what is left describes the representation
    own = {key: described.pop(key) for key in _OWN if key in described}
    sizes = {key: described.pop(key, None) for key in _SIZES}
    signal = _section(own.get("signal") or {}, ("grid",), "signal")
    grid = tuple(int(side) for side in signal["grid"]) if signal.get("grid") else None
    if grid is not None and (len(grid) != 2 or min(grid) < 1):
        raise UserError(f"signal.grid is {list(grid)}", allowed="height and width in pixels", do="mend it")
    # architecture and convention: as the sections say, or as an export wrote it whole
    field, convention = _field(own.get("field") or {})
    convention |= _coordinates(own.get("coordinates") or {}, grid) | _values(own.get("values") or {})
    convention |= _section(own.get("convention") or {}, tuple(c.name for c in fields(Convention)), "convention")
    config = RepresentationConfig(**({"kind": "mlp"} | _typed(described, RepresentationConfig, "")), field=field)
    plain = Convention(**convention) == Convention()
    return Network(
        representation=_representation(config, sizes, None if plain else Convention(**convention), base),
        grid=grid,
        names=_texts(own.get("names") or {}, "names", Mapping, "a map from names in the files to ours"),
        inside=_texts(own.get("inside"), "inside", str | None, "a key"),
        ignore=tuple(_texts(own.get("ignore") or [], "ignore", list, "a list of names in the files")),
    )


def _texts(value, name: str, kind, allowed: str):
    """A text, or texts, of the description."""
    inner = [*value, *value.values()] if isinstance(value, Mapping) else value if isinstance(value, list) else []
    if not isinstance(value, kind) or not all(isinstance(text, str) for text in inner):
        raise UserError(f"{name} is {value!r}", allowed=allowed, do="mend it")
    return value


def _typed(values: dict, owner: type, prefix: str) -> dict:
    """Values of the types that a configuration has by default; YAML reads ``3e1`` as a text."""
    defaults = {entry.name: entry.default for entry in fields(owner)}
    for name, value in values.items():
        wanted = float if defaults[name] is None else type(defaults[name])
        fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
        fits = fits and (wanted is bool or not isinstance(value, bool))
        if not fits and not (value is None and defaults[name] is None):
            raise UserError(f"{prefix}{name} is {value!r}", allowed=f"of type {wanted.__name__}", do="mend it")
    return values


def _representation(config: RepresentationConfig, sizes: dict, convention: Convention | None, base) -> Representation:
    if config.is_adapter:
        if convention is not None:
            raise UserError("a convention is given for an adapter", allowed="the base field's own", do="leave it out")
        return Representation.build(config, base, **sizes)
    sizes = {name: int(sizes[name] or default) for name, default in zip(_SIZES, (2, 1))}
    if convention is None:
        return Representation.build(config, **sizes)
    from wsrl.fields.foreign import ForeignRepresentation

    return ForeignRepresentation(config, convention, **sizes)


def _field(section: dict) -> tuple[FieldConfig, dict]:
    """The architecture, and what in it is not ours."""
    names = tuple(config.name for config in fields(FieldConfig))
    section, convention = _section(section, (*names, "omega_hidden"), "field"), {}
    if "omega_hidden" in section:
        convention["omega_hidden"] = float(section.pop("omega_hidden"))
    if section.get("activation") in MORE_ACTIVATIONS:
        convention["activation"] = section.pop("activation")
    section = _typed(section, FieldConfig, "field.")
    return FieldConfig(**({"encoding": "identity", "activation": "sine"} | section)), convention


def _coordinates(section: dict, grid: tuple[int, int] | None) -> dict:
    """The network's coordinates of a pixel as a factor and an offset on ours, which are centres in [-1, 1]."""
    section = _section(section, ("order", "range", "ends"), "coordinates")
    order, ends = section.get("order", "down_right"), section.get("ends", "centres")
    low, high = map(float, section.get("range", (-1.0, 1.0)))
    if order not in _ORDERS or ends not in ("centres", "corners") or not low < high:
        raise UserError(
            f"coordinates are {section}",
            allowed="order down_right or right_down; range [low, high]; ends centres or corners",
            do="mend them",
        )
    convention = {"coord_order": _ORDERS[order]} if _ORDERS[order] else {}
    if ends == "centres" and (low, high) == (-1.0, 1.0):
        return convention
    # a factor where the ends are the centres of the outer pixels, then from [-1, 1] to the range
    factors = [1.0, 1.0]
    if ends == "corners":
        if grid is None or min(grid) < 2:
            raise UserError("coordinates.ends is corners", allowed="corners with a signal.grid", do="give signal.grid")
        factors = [side / (side - 1) for side in grid]
    scale = [factor * (high - low) / 2 for factor in factors]
    scale = scale[::-1] if _ORDERS[order] else scale
    return convention | {"coord_scale": tuple(scale), "coord_offset": ((low + high) / 2,) * 2}


def _values(section: dict) -> dict:
    """The factor and offset that take the network's values to [0, 1]."""
    section = _section(section, ("range", "scale", "offset", "final"), "values")
    convention = {"final": section["final"]} if "final" in section else {}
    if "range" in section:
        low, high = map(float, section["range"])
        if not low < high:
            raise UserError(f"values.range is {section['range']}", allowed="[low, high]", do="mend it")
        return convention | {"value_scale": 1 / (high - low), "value_offset": -low / (high - low)}
    return convention | {f"value_{name}": section[name] for name in ("scale", "offset") if name in section}
