"""The weight autoencoder: from the weights of a field to a short latent and back.

Letters: B fields, V trainable weights, K latent tokens, D length of a latent token.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors import SafetensorError
from torch import Tensor

from wsrl.encoders.latents import READERS, WRITERS, TransformerReader, UnfReader, WeightWriter
from wsrl.encoders.normalisation import STD_FLOOR, Moments, WeightStatistics
from wsrl.encoders.precision import KeepsFloat32
from wsrl.encoders.transformer import TransformerConfig
from wsrl.errors import UserError
from wsrl.fields.gauge import RAW
from wsrl.fields.layout import Layout
from wsrl.fields.saving import CONFIG_FILE
from wsrl.options import check_values, one_of


class WeightAutoencoder(KeepsFloat32, ModelMixin, ConfigMixin):
    """Reads normalised weights into K tokens of length D, and writes weights from them.

    Only trainable entries enter and leave; frozen ones come back bit for bit from the statistics. It is a space in
    which diffusion can live: :meth:`encode` and :meth:`decode` speak of latents that have mean 0 and variance 1 over
    the training fields once :meth:`measure_latents` has seen them.

    Args:
        layout: Layout of the fields, as plain lists and dicts (``Layout.to_json``).
        encoder: ``transformer``, or ``unf``.
        decoder: ``joint``: queries and latent tokens in the same blocks; ``cross``: queries look at the latent once.
        latent_tokens: Number K of latent tokens.
        latent_channels: Length D of each latent token.
        width: Size of a token inside both transformers.
        depth: Blocks of the encoder (equivariant layers of a UNF).
        decoder_depth: Blocks of the decoder.
        heads: Attention heads; divides the width.
        expansion: Hidden units of a block's feed-forward part, in widths.
        linear: Add a linear map of the whole latent to what the decoder writes.
        kl: The encoder gives a Gaussian of learned width, of which ``encode`` takes the mean; otherwise a point.
        encoder_options: Further options of the UNF, by name.
        gauge: ``raw``, or ``canonical`` where weights are brought into that form before they are read; what is written
            is near to it.

    Raises:
        UserError: An option does not fit.
    """

    @register_to_config
    def __init__(
        self,
        layout: list,
        encoder: str = "transformer",
        decoder: str = "joint",
        latent_tokens: int = 8,
        latent_channels: int = 12,
        width: int = 128,
        depth: int = 2,
        decoder_depth: int = 2,
        heads: int = 4,
        expansion: int = 2,
        linear: bool = True,
        kl: bool = False,
        encoder_options: dict[str, Any] | None = None,
        gauge: str = RAW,
    ):
        super().__init__()
        check_values({"encoder": encoder, "decoder": decoder}, encoder=one_of(*READERS), decoder=one_of(*WRITERS))
        fields = Layout.from_json(layout)
        sizes = {"width": width, "heads": heads, "expansion": expansion, "dropout": 0.0}
        # Normalisation, what reads weights into latents (and their variance, for the divergence), and what writes them.
        self.statistics = WeightStatistics(fields, gauge)
        read = latent_channels * (2 if kl else 1)
        if encoder == "unf":
            self.reader = UnfReader(fields, {"depth": depth, **(encoder_options or {})}, latent_tokens, read)
        else:
            self.reader = TransformerReader(fields, TransformerConfig(depth=depth, **sizes), latent_tokens, read)
        blocks = TransformerConfig(depth=decoder_depth, **sizes)
        self.writer = WeightWriter(fields, blocks, decoder, latent_tokens, latent_channels, linear)
        self.register_buffer("latent_mean", torch.zeros(latent_tokens * latent_channels))
        self.register_buffer("latent_std", torch.ones(latent_tokens * latent_channels))

    @property
    def layout(self) -> Layout:
        """Layout of the fields."""
        return self.statistics.layout

    @property
    def vector_size(self) -> int:
        """Length ``K * D`` of a latent vector."""
        return len(self.latent_mean)

    @property
    def token_options(self) -> dict:
        """How a denoiser cuts a latent vector into tokens: its arguments."""
        return {"latent": [self.config.latent_tokens, self.config.latent_channels]}

    def encode(self, weights: dict[str, Tensor]) -> Tensor:
        """Standardised latents ``(B, K * D)`` of weights ``(B, *shape)``."""
        mean, _ = self.posterior(self.statistics.normalise(weights))
        return (mean.flatten(1) - self.latent_mean) / self.latent_std

    def decode(self, vector: Tensor) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` of standardised latents ``(B, K * D)``."""
        latent = vector * self.latent_std + self.latent_mean
        return self.statistics.denormalise(self.write(latent.unflatten(1, (self.config.latent_tokens, -1))))

    def forward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights ``(B, *shape)`` through the latent and back."""
        return self.decode(self.encode(weights))

    def posterior(self, vector: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean of the latents ``(B, K, D)`` of normalised weights ``(B, V)``, and their log variance where ``kl``."""
        read = self.reader(vector)
        if not self.config.kl:
            return read, None
        mean, log_variance = read.chunk(2, dim=-1)
        return mean, log_variance.clamp(-20.0, 5.0)

    def write(self, latent: Tensor) -> Tensor:
        """Normalised weights ``(B, V)`` of latents ``(B, K, D)`` that are not standardised."""
        return self.writer(latent)

    @torch.no_grad()
    def measure_latents(self, batches: Iterable[dict[str, Tensor]]) -> dict[str, float]:
        """Take mean and standard deviation of each entry of the latents over training fields, to standardise them.

        An entry that hardly varies is divided by a floor, as in :class:`WeightStatistics`.

        Args:
            batches: Weights ``(B, *shape)``, on the device of the network.

        Returns:
            Mean, smallest and largest standard deviation before the floor, and the number of entries on the floor.

        Raises:
            UserError: There are no fields.
        """
        # Mean and variance of the latents over all fields, in one pass.
        moments = Moments(self.vector_size)
        for weights in batches:
            mean, _ = self.posterior(self.statistics.normalise(weights))
            moments.update(mean.flatten(1).cpu().double())
        if moments.count == 0:
            raise UserError("there are no fields to measure", allowed="at least one field", do="build the store first")
        # Latents that do not vary are divided by a floor.
        std = (moments.squares / moments.count).sqrt()
        floor = STD_FLOOR * std.square().mean().sqrt()
        self.latent_mean.copy_(moments.mean)
        self.latent_std.copy_(std.clamp_min(floor) if floor > 0 else torch.ones_like(std))
        return {
            "latent_std_mean": float(std.mean()),
            "latent_std_min": float(std.min()),
            "latent_std_max": float(std.max()),
            "latent_num_dead": float((std <= floor).sum()),
        }


def open_autoencoder(path: Path | str, layout: Layout | None = None) -> WeightAutoencoder:
    """The autoencoder in a folder, or in the folder ``model`` of a run of ``wsrl train autoencoder``.

    Args:
        path: The folder.
        layout: Layout of the fields that it is to read; None does not ask.

    Returns:
        The network in evaluation mode on the CPU, whose parameters are not trained.

    Raises:
        UserError: There is none, it is damaged, or it reads other fields.
    """
    folder = next((f for f in (Path(path), Path(path) / "model") if (f / CONFIG_FILE).is_file()), None)
    allowed, do = "a folder written by wsrl train autoencoder", "train one, or check the path"
    try:
        config = {} if folder is None else WeightAutoencoder.load_config(folder)
        if config.get("_class_name") != WeightAutoencoder.__name__:
            raise UserError(f"{path} holds no weight autoencoder", allowed=allowed, do=do)
        autoencoder = WeightAutoencoder.from_pretrained(folder, low_cpu_mem_usage=False)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, UserError):
            raise
        reason = str(error).splitlines()[0]
        raise UserError(f"the autoencoder {folder} cannot be loaded: {reason}", allowed=allowed, do=do) from error
    if layout is not None and autoencoder.layout != layout:
        raise UserError(
            f"the autoencoder {path} reads fields of another layout",
            allowed="an autoencoder trained on fields of the same representation and base",
            do="train one on this store with wsrl train autoencoder",
        )
    return autoencoder.requires_grad_(False).eval()
