"""Networks from weights to weights: they change a field by its weights.

Letters: B fields, V trainable weights of a field, T tensors.

Source: Zhou et al. 2023, arXiv 2302.14040: sine networks whose pictures are dilated by editing their weights.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from wsrl.encoders.encoder import EncoderConfig
from wsrl.encoders.mlp import perceptron
from wsrl.encoders.normalisation import WeightStatistics, shared_statistics
from wsrl.errors import UserError
from wsrl.fields.gauge import RAW
from wsrl.fields.layout import Layout
from wsrl.fields.saving import read_model, write_model
from wsrl.options import Allowed, at_least, every, from_plain, one_of, option
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.functionals import NONLINEARITIES, EquivariantNetwork, UnfConfig

START_SCALE = 0.01
"""Size of the first edits, in standard deviations of the weights: training starts at leaving the field as it is."""


class WeightEditor(nn.Module):
    """Adds to every trainable weight what a network says, in standard deviations and times a learned scale.

    A kind gives ``kind``, ``config_class`` and ``change``. Frozen entries stay as they are.

    Args:
        config: Options of the kind.
        statistics: Per-entry statistics of the training fields; they carry the layout. The editor keeps a copy that is
            shared over permuted axes where ``config.normalisation`` asks for it.
    """

    kind: ClassVar[str]
    config_class: ClassVar[type[EncoderConfig]]

    def __init__(self, config: EncoderConfig, statistics: WeightStatistics):
        super().__init__()
        self.config = config
        self.statistics = shared_statistics(statistics) if config.normalisation == "tensor" else statistics
        self.scale = nn.Parameter(torch.full((len(self.layout.tensors),), START_SCALE))

    @property
    def layout(self) -> Layout:
        """Layout of the fields that the editor takes and gives."""
        return self.statistics.layout

    @property
    def num_parameters(self) -> int:
        """Parameters that training changes."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Edited weights ``(B, *shape)`` of weights ``(B, *shape)``."""
        statistics = self.statistics
        weights = statistics.in_gauge(weights)
        change = self.change(statistics.normalise(weights)) * statistics.std
        scaled = zip(self._tensors(change).items(), self.scale)
        return {name: weights[name] + scale * moved for (name, moved), scale in scaled}

    def change(self, vector: Tensor) -> Tensor:
        """What to add ``(B, V)`` to normalised trainable weights ``(B, V)``, before the scale."""
        raise NotImplementedError

    def _tensors(self, vector: Tensor) -> dict[str, Tensor]:
        """Trainable entries ``(B, V)`` as tensors ``(B, *shape)``; zero where an entry is frozen."""
        full = vector.new_zeros(len(vector), self.layout.num_weights)
        return self.layout.unflatten(full.index_copy(1, self.statistics.trainable_index, vector))

    def save_pretrained(self, directory: Path | str) -> None:
        """Write ``config.json`` (kind, options, layout) and ``model.safetensors`` (network and statistics)."""
        data = {"kind": self.kind, "options": asdict(self.config), "layout": self.layout.to_json()}
        data["gauge"] = self.statistics.gauge
        write_model(directory, {"model": "WeightEditor", **data}, self)

    @staticmethod
    def from_pretrained(directory: Path | str) -> "WeightEditor":
        """Load an editor of any kind that :meth:`save_pretrained` wrote, in evaluation mode on the CPU.

        Raises:
            UserError: The folder does not hold an editor, or it is damaged.
        """

        def build(data: dict) -> WeightEditor:
            gauge = data.get("gauge", RAW)  # earlier editors do not say: there was no other
            return build_editor(
                data["kind"], data["options"], WeightStatistics(Layout.from_json(data["layout"]), gauge)
            )

        return read_model(directory, build, "an editor of weights")


@dataclass(frozen=True, kw_only=True)
class UnfEditorConfig(EncoderConfig):
    """Options of :class:`UnfEditor`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`; equivariant with ``tensor``.
        dropout: Not used by equivariant layers; zero.
        channels: Channels of every hidden layer.
        depth: Equivariant layers.
        activation: ``gated`` or ``relu``, see :class:`wsrl.unf.functionals.UnfConfig`.
        num_frequencies: Octaves of sines and cosines of every weight that go in beside it.
        lowest_frequency: Of the first octave, in radians per standard deviation of the tensor's weights.
        seed: Seed of the start.
    """

    dropout: float = option(0.0, Allowed("0", lambda value: value == 0))
    channels: int = option(32, at_least(1))
    depth: int = option(4, at_least(1))
    activation: str = option("gated", one_of(*NONLINEARITIES))
    num_frequencies: int = option(5, at_least(0))
    lowest_frequency: float = 0.5
    seed: int = 0


class UnfEditor(WeightEditor):
    """A universal neural functional: permuting the neurons of a field permutes those of the edited one.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "unf"
    config_class = UnfEditorConfig

    def __init__(self, config: UnfEditorConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        sizes = UnfConfig(
            channels=config.channels,
            depth=config.depth,
            activation=config.activation,
            num_frequencies=config.num_frequencies,
            lowest_frequency=config.lowest_frequency,
            seed=config.seed,
        )
        self.network = EquivariantNetwork(PermutationSpec.from_layout(self.layout), sizes)

    def change(self, vector: Tensor) -> Tensor:
        """What to add ``(B, V)`` to normalised trainable weights ``(B, V)``, before the scale."""
        features = {name: tensor[..., None] for name, tensor in self._tensors(vector).items()}
        changed = {name: tensor[..., 0] for name, tensor in self.network(features).items()}  # (B, *shape) each
        return self.layout.flatten(changed)[:, self.statistics.trainable_index]  # (B, V)


@dataclass(frozen=True, kw_only=True)
class MlpEditorConfig(EncoderConfig):
    """Options of :class:`MlpEditor`.

    Attributes:
        normalisation: ``entry`` or ``tensor``, see :class:`EncoderConfig`.
        dropout: Share of hidden units that is dropped in training.
        hidden: Width of each hidden layer.
        seed: Seed of the start.
    """

    normalisation: str = "entry"
    hidden: tuple[int, ...] = option((512, 512), every(at_least(1)))
    seed: int = 0


class MlpEditor(WeightEditor):
    """A perceptron from all trainable weights side by side to as many; it ignores every symmetry of the weights.

    Args:
        config: Options.
        statistics: Statistics of the training fields.
    """

    kind = "mlp"
    config_class = MlpEditorConfig

    def __init__(self, config: MlpEditorConfig, statistics: WeightStatistics):
        super().__init__(config, statistics)
        size = self.layout.num_trainable
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.blocks = perceptron(size, config.hidden, config.dropout)
            self.last = nn.Linear(config.hidden[-1] if config.hidden else size, size)

    def change(self, vector: Tensor) -> Tensor:
        """What to add ``(B, V)`` to normalised trainable weights ``(B, V)``, before the scale."""
        return self.last(self.blocks(vector))


EDITORS: dict[str, type[WeightEditor]] = {editor.kind: editor for editor in (UnfEditor, MlpEditor)}


def build_editor(kind: str, options: Mapping[str, Any], statistics: WeightStatistics) -> WeightEditor:
    """An editor with new parameters.

    Args:
        kind: A key of ``EDITORS``.
        options: Plain values by name; options that are left out keep their defaults.
        statistics: Per-entry statistics of the training fields; they carry the layout.

    Raises:
        UserError: The kind or an option is unknown, or a value does not fit.
    """
    if kind not in EDITORS:
        raise UserError(f"unknown editor {kind!r}", allowed=", ".join(EDITORS), do="choose one of these editors")
    return EDITORS[kind](from_plain(EDITORS[kind].config_class, options, "options."), statistics)
