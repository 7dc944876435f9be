"""The base field: a coordinate network whose weights a latent modulates, trained once over many signals.

Letters: N instances, P points, D coordinates, C channels, Z latent size.
"""

import hashlib
import itertools
import json
import os
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from wsrl.fields.network import FieldConfig, Trunk, apply_layers, initial_layers
from wsrl.fields.saving import read_model, write_model


@dataclass(frozen=True, kw_only=True)
class BaseFieldConfig:
    """Architecture of a base field.

    Attributes:
        field: The coordinate network.
        latent_size: Numbers in the latent of one instance.
        mapping_width: Neurons of each hidden layer of the mapping network.
        mapping_depth: Number of hidden layers of the mapping network.
    """

    field: FieldConfig = FieldConfig()
    latent_size: int = 64
    mapping_width: int = 128
    mapping_depth: int = 2


class MappingNetwork(nn.Module):
    """From a latent to one factor per input channel of every hidden layer."""

    def __init__(self, config: BaseFieldConfig, channels: list[int]):
        super().__init__()
        sizes = [config.latent_size, *[config.mapping_width] * config.mapping_depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(sizes))
        self.head = nn.Linear(sizes[-1], sum(channels))
        self.channels = channels
        with torch.no_grad():
            self.head.bias.zero_()

    def forward(self, latents: Tensor) -> list[Tensor]:
        """Scales minus one, ``(N, in)`` per modulated layer for ``latents (N, Z)``."""
        hidden = latents
        for layer in self.hidden:
            hidden = nn.functional.leaky_relu(layer(hidden), 0.2)
        return list(self.head(hidden).split(self.channels, dim=-1))


class BaseField(nn.Module):
    """A trunk, the mapping network that modulates it, and the mean modulation of the training instances.

    The modulated weight of layer l for instance i is ``W_l * (1 + s_l(z_i))``, one factor per input channel. The
    mean modulation is folded into :attr:`trunk`, so a latent acts relative to it. Source: arXiv 2512.01759, stage 1.

    Args:
        config: Architecture.
        in_features: Coordinates of a point.
        out_features: Channels of a value.
        generator: Randomness of the initial weights.
    """

    def __init__(
        self,
        config: BaseFieldConfig,
        in_features: int,
        out_features: int,
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.config, self.in_features, self.out_features = config, in_features, out_features
        generator = generator or torch.Generator().manual_seed(config.field.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
            self.trunk = Trunk(config.field, in_features, out_features)
            channels = [layer.in_features for layer in self.trunk.layers]
            self.mapping = MappingNetwork(config, channels)
        weights, biases = initial_layers(config.field, in_features, out_features, generator)
        for layer, weight, bias in zip(self.trunk.layers, weights, biases):
            layer.weight.data.copy_(weight)
            layer.bias.data.copy_(bias)
        for i, size in enumerate(channels):
            self.register_buffer(f"mean_modulation_{i}", torch.zeros(size))

    def modulation(self, latents: Tensor) -> list[Tensor]:
        """Factors ``(N, in)`` on the columns of every layer's weight, relative to the trunk, for ``latents (N, Z)``."""
        scale_offsets = self.mapping(latents)
        return [(1 + s) / (1 + self.get_buffer(f"mean_modulation_{i}")) for i, s in enumerate(scale_offsets)]

    def forward(self, latents: Tensor, coords: Tensor) -> Tensor:
        """Values ``(N, P, C)`` of the instances ``latents (N, Z)`` at ``coords (P, D)`` or ``(N, P, D)``."""
        return self.evaluate_encoded(latents, self.trunk.encoding(coords)).mT

    def evaluate_encoded(self, latents: Tensor, features: Tensor) -> Tensor:
        """Values ``(N, C, P)`` for points that the trunk's encoding has encoded, ``(F, P)`` or ``(N, F, P)``."""
        if features.ndim == 2:
            side_by_side = features.unsqueeze(1).expand(-1, len(latents), -1)
        else:
            side_by_side = features.movedim(1, 0)
        values = apply_layers(
            self.config.field,
            side_by_side.flatten(1),
            self.trunk.weights,
            self.trunk.biases,
            self.modulation(latents),
        )
        return values.unflatten(-1, (len(latents), -1)).movedim(1, 0)  # (N, C, P)

    @torch.no_grad()
    def fold_mean_modulation(self, latents: Tensor) -> None:
        """Make the trunk the mean field: multiply the mean modulation of ``latents (N, Z)`` into its weights.

        What :meth:`forward` computes for a latent does not change.
        """
        total = [torch.zeros_like(self.get_buffer(f"mean_modulation_{i}")) for i in range(len(self.trunk.layers))]
        for chunk in latents.split(4096):
            total = [t + s.sum(0) for t, s in zip(total, self.mapping(chunk))]
        for i, (layer, summed) in enumerate(zip(self.trunk.layers, total)):
            mean = summed / len(latents)
            # A mean near -1 would fold a channel to zero, from where no latent could bring it back.
            mean = torch.where((1 + mean).abs() < 1e-2, torch.full_like(mean, -1 + 1e-2), mean)
            buffer = self.get_buffer(f"mean_modulation_{i}")
            layer.weight.mul_((1 + mean) / (1 + buffer))
            buffer.copy_(mean)

    def sha256(self) -> str:
        """Hash of the configuration and of every tensor."""
        digest = hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode())
        for name, tensor in sorted(self.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def to_json(self) -> dict:
        """The configuration as plain values."""
        return {**asdict(self.config), "in_features": self.in_features, "out_features": self.out_features}

    @classmethod
    def from_json(cls, data: dict) -> "BaseField":
        """An untrained base field of the configuration from :meth:`to_json`."""
        data = dict(data)
        in_features, out_features = data.pop("in_features"), data.pop("out_features")
        field = FieldConfig(**data.pop("field"))
        return cls(BaseFieldConfig(field=field, **data), in_features, out_features)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Write ``config.json`` and ``model.safetensors`` into ``directory``."""
        write_model(directory, self.to_json(), self)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike) -> "BaseField":
        """Read what :meth:`save_pretrained` wrote.

        Raises:
            UserError: The folder holds no base field, or one that cannot be read.
        """
        do = "give the folder that `wsrl base` wrote, or train one with `wsrl base DATA --out DIR`"
        return read_model(directory, cls.from_json, "a base field", do).requires_grad_(False)
