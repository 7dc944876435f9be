"""Where diffusion happens: standardised vectors, and the maps from weights to them and back.

A space has ``vector_size``, ``encode``, ``decode`` and ``token_options``; :class:`WeightSpace` is that of the weights
themselves, :class:`wsrl.encoders.autoencoder.WeightAutoencoder` one of latents.

Letters: B fields, V length of a vector.
"""

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from wsrl.encoders.normalisation import WeightStatistics, pooled_statistics
from wsrl.encoders.precision import KeepsFloat32
from wsrl.fields.gauge import RAW
from wsrl.fields.layout import Layout
from wsrl.options import check_values, one_of

SCALES = ("entry", "pooled")


class WeightSpace(KeepsFloat32, ModelMixin, ConfigMixin):
    """The trainable weights of a field, standardised with statistics of the training fields.

    Args:
        layout: Layout of the fields, as plain lists and dicts (``Layout.to_json``).
        gauge: ``raw``, or ``canonical`` where weights are brought into that form first.
    """

    @register_to_config
    def __init__(self, layout: list, gauge: str = RAW):
        super().__init__()
        self.statistics = WeightStatistics(Layout.from_json(layout), gauge)

    @classmethod
    def of(cls, statistics: WeightStatistics, scale: str = "entry") -> "WeightSpace":
        """A space with its own copy of some statistics.

        Args:
            statistics: Statistics of the training fields.
            scale: ``entry`` standardises each weight by itself; ``pooled`` all by one mean and one standard deviation.

        Raises:
            UserError: The scale is unknown.
        """
        check_values({"scale": scale}, scale=one_of(*SCALES))
        scaled = statistics if scale == "entry" else pooled_statistics(statistics)
        space = cls(layout=statistics.layout.to_json(), gauge=statistics.gauge)
        space.statistics.load_state_dict(scaled.state_dict())
        return space

    @property
    def layout(self) -> Layout:
        """Layout of the fields."""
        return self.statistics.layout

    @property
    def vector_size(self) -> int:
        """Length V of the vectors."""
        return len(self.statistics.mean)

    @property
    def token_options(self) -> dict:
        """What tells a denoiser how vectors are cut into tokens."""
        return {"layout": self.layout.to_json()}

    def encode(self, weights: dict[str, Tensor]) -> Tensor:
        """Vectors ``(B, V)`` of weights ``(B, *shape)``."""
        return self.statistics.normalise(weights)

    def decode(self, vector: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` of vectors ``(B, V)``; frozen entries are those of the training fields."""
        return self.statistics.denormalise(vector)
