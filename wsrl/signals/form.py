"""What kind of signals a source gives: pictures or shapes, how many channels, in what range, on which grid.

The one place that tells a picture from a shape: sources make it, stores and models that render carry it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

PICTURE_CHANNELS = (1, 3, 4)  # grey, RGB and RGBA
SHAPE_QUANTITIES = ("sdf", "occupancy")
QUANTITIES = ("intensity", *SHAPE_QUANTITIES)
UNIT_RANGE = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class SignalForm:
    """What all signals of a source have in common.

    Attributes:
        in_features: Coordinates D of a point.
        out_features: Channels C of a value.
        quantity: What the values are: ``intensity``; ``sdf``, distances to a surface, negative inside, cut to the value
            range; ``occupancy``, 1 inside and 0 outside, where a field gives the logit of being outside. So the
            fields of all shapes are negative inside. Of fields that others fitted it is not known: ``intensity``.
        value_range: Smallest and largest value that can occur; its width is the peak of the PSNR.
        grid: Shape of the regular grid the points form in row-major order, ``(height, width)`` for an image; None for
            scattered points.
    """

    in_features: int
    out_features: int
    quantity: str = "intensity"
    value_range: tuple[float, float] = UNIT_RANGE
    grid: tuple[int, ...] | None = None

    def __post_init__(self):
        assert self.quantity in QUANTITIES, self.quantity
        # JSON has lists, options whole numbers
        object.__setattr__(self, "value_range", tuple(float(bound) for bound in self.value_range))
        object.__setattr__(self, "grid", None if self.grid is None else tuple(int(size) for size in self.grid))

    @property
    def is_shape(self) -> bool:
        """Whether a value is one number at a point in space, zero on the surface of a shape."""
        return (self.in_features, self.out_features) == (3, 1)

    @property
    def is_picture(self) -> bool:
        """Whether a value is a colour, grey, RGB or RGBA, at a point of a plane."""
        return self.in_features == 2 and self.out_features in PICTURE_CHANNELS

    @property
    def has_inside(self) -> bool:
        """Whether the values are known to be negative or 1 inside of a shape."""
        return self.quantity in SHAPE_QUANTITIES

    @property
    def sizes(self) -> dict[str, int]:
        """``in_features`` and ``out_features``: what a representation of these signals maps to what."""
        return {"in_features": self.in_features, "out_features": self.out_features}

    def to_json(self) -> dict:
        """The form as plain JSON."""
        lists = {"value_range": list(self.value_range), "grid": None if self.grid is None else list(self.grid)}
        return asdict(self) | lists

    @classmethod
    def from_json(cls, plain: Mapping) -> "SignalForm":
        """The form that ``to_json`` gave."""
        return cls(**plain)

    @classmethod
    def from_description(cls, source: Mapping, representation: Mapping) -> "SignalForm":
        """The form as far as a store of schema 1 tells it.

        Args:
            source: Description of the source in the manifest; empty where the store does not know it.
            representation: ``Representation.to_dict()``, or empty where its rows are no fields.
        """
        quantity, grid = source.get("quantity", "intensity"), source.get("grid")
        clamp = float(source["options"]["clamp"]) if quantity == "sdf" else None
        return cls(
            in_features=representation.get("in_features", source.get("coordinates", len(grid or ()))),
            out_features=representation.get("out_features", source.get("channels", 0)),
            quantity=quantity,
            value_range=UNIT_RANGE if clamp is None else (-clamp, clamp),
            grid=grid or None,
        )
