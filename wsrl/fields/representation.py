"""The six representations: what the weights of one field are, and how they become values at coordinates.

Letters: N fields, P points, D coordinates, C channels.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from wsrl.adapters.masks import asymmetric_mask
from wsrl.adapters.scaling import FORMS, INIT_STD, scale_weight, start_factors
from wsrl.errors import UserError
from wsrl.fields import gauge
from wsrl.fields.layout import Layout, TensorSpec
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.network import Encoding, FieldConfig, apply_layers, initial_layers
from wsrl.options import SHARE, at_least, check, one_of, option

KINDS = ("mlp", "mlp_asym", "lora", "lora_asym", "mlora", "mlora_asym")
STARTS = ("shared", "random")
FROZEN_AT = ("zero", "random")
ADDITIVE_INIT_STD = 0.1


@dataclass(frozen=True, kw_only=True)
class RepresentationConfig:
    """How the weights of one field become a field.

    Attributes:
        kind: ``mlp``, ``mlp_asym``: a network of its own; ``lora``, ``lora_asym``: additive low-rank change of the base
            field; ``mlora``, ``mlora_asym``: multiplicative one. ``_asym`` freezes a fixed random set of entries.
        rank: Rank of an adapter.
        form: How a multiplicative adapter acts: ``exp``, ``one_plus`` or ``product``.
        mask_fraction: Share of the entries of every ``A`` (of every weight for ``mlp_asym``) that is frozen.
        frozen_scale: Standard deviation of the frozen entries that are not zero, in units of that of the free ones.
        frozen_at: Where the frozen entries of ``mlora_asym`` are: at ``zero``, or at ``random`` values like those of
            ``lora_asym`` and ``mlp_asym``, which are never zero. Random ones are not for the form ``product``.
        init_std: Standard deviation of the entries of ``A`` at the start; None takes the one that suits kind and form.
        start: ``shared``: all fields start alike; ``random``: each from its own seed.
        seed: Seed of the mask, the frozen values and the shared start.
        field: Architecture of a standalone field; adapters take the base field's.
    """

    kind: str = option("mlora_asym", one_of(*KINDS))
    rank: int = option(4, at_least(1))
    form: str = option("exp", one_of(*FORMS))
    mask_fraction: float = option(0.25, SHARE)
    frozen_scale: float = 2.0
    frozen_at: str = option("zero", one_of(*FROZEN_AT))
    init_std: float | None = None
    start: str = option("shared", one_of(*STARTS))
    seed: int = 0
    field: FieldConfig = FieldConfig(width=26, depth=3, encoding="identity", activation="sine", omega=15.0)

    def __post_init__(self):
        check(self, "representation.")
        if self.kind == "mlora_asym" and self.form == "product" and self.frozen_at != "zero":
            raise UserError(
                f"representation.frozen_at is {self.frozen_at!r} and the form is product, which starts at B A = 1",
                allowed="zero with product; either with exp and one_plus",
                do="leave out frozen_at",
            )
        if self.init_std is None:
            std = ADDITIVE_INIT_STD if self.kind.startswith("lora") else INIT_STD[self.form]
            object.__setattr__(self, "init_std", std)

    @property
    def is_adapter(self) -> bool:
        """Whether the kind needs a base field."""
        return "lora" in self.kind

    @property
    def is_masked(self) -> bool:
        """Whether some entries are frozen."""
        return self.kind.endswith("_asym")

    def to_dict(self) -> dict:
        """Plain values; what was written before frozen entries could lie elsewhere says nothing of where they are."""
        plain = asdict(self)
        if self.frozen_at == FROZEN_AT[0]:
            del plain["frozen_at"]
        return plain


@dataclass(frozen=True, kw_only=True)
class LayerParts:
    """What a linear layer of a field is made of: names of the field's own tensors, or tensors that all fields share.

    Attributes:
        weight: Name, or frozen weight ``(out, in)``.
        bias: Name, or frozen bias ``(out,)``.
        down: Name of the factor ``A`` ``(rank, in)`` that changes the weight; None where nothing does.
        up: Name of the factor ``B`` ``(out, rank)``.
        form: How the factors change the weight: one of ``FORMS``, or ``add``.
    """

    weight: Tensor | str
    bias: Tensor | str
    down: str | None = None
    up: str | None = None
    form: str = "add"

    def combined(self, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weight ``(N, out, in)`` and bias of the layer; shared ones have no batch axis."""
        weight = weights[self.weight] if isinstance(self.weight, str) else self.weight
        bias = weights[self.bias] if isinstance(self.bias, str) else self.bias
        if self.down is None:
            return weight, bias
        down, up = weights[self.down], weights[self.up]
        if self.form == "add":
            return torch.baddbmm(weight.expand(len(up), *weight.shape), up, down), bias
        return scale_weight(weight, down, up, self.form), bias


class Representation:
    """One rule from weights to fields; built with :meth:`build`.

    Attributes:
        config: What it was built from.
        layout: Names, shapes, frozen entries and symmetries of the weights.
        base: The base field of an adapter; None for a standalone network.
    """

    def __init__(self, config: RepresentationConfig, base: BaseField | None, in_features: int, out_features: int):
        self.config, self.base = config, base
        self.in_features, self.out_features = in_features, out_features
        self._generator = torch.Generator().manual_seed(config.seed)
        if base is not None:
            self.field_config, self.encoding = base.config.field, base.trunk.encoding
        else:
            self.field_config, self.encoding = config.field, Encoding(config.field, in_features)
        self._set_up()

    @staticmethod
    def build(
        config: RepresentationConfig,
        base: BaseField | None = None,
        *,
        in_features: int | None = None,
        out_features: int | None = None,
    ) -> "Representation":
        """The representation of a configuration.

        Args:
            config: Kind, rank, form and mask.
            base: The base field, which adapters need and standalone networks ignore.
            in_features: Coordinates of a point; taken from the base field of an adapter.
            out_features: Channels of a value; taken from the base field of an adapter.

        Raises:
            UserError: An adapter without a base field, or one whose base field has other coordinates or channels.
        """
        if not config.is_adapter:
            assert in_features is not None and out_features is not None, "a standalone field needs its dimensions"
            return StandaloneRepresentation(config, None, in_features, out_features)
        if base is None:
            raise UserError(
                f"{config.kind} adapts a base field and none was given",
                allowed="a folder that `wsrl base` wrote",
                do="pass --base DIR, or choose the kind mlp",
            )
        actual, asked = (base.in_features, base.out_features), (in_features, out_features)
        if any(a is not None and a != f for f, a in zip(actual, asked)):
            raise UserError(
                f"the base field maps {actual[0]} coordinates to {actual[1]} channels, "
                f"the data need {asked[0]} to {asked[1]}",
                allowed="a base field trained on data of the same kind",
                do="train one on these data with `wsrl base`, or choose the mode (L or RGB) that fits",
            )
        return AdapterRepresentation(config, base, *actual)

    def initial(self, generator: torch.Generator | None = None, num: int | None = None) -> dict[str, Tensor]:
        """Weights to start fitting from.

        Args:
            generator: Randomness of the start; None takes the configured seed.
            num: Number of independent starts; None for one start without a batch axis.

        Returns:
            One tensor per entry of the layout, ``shape`` or ``(num, *shape)``. Frozen entries are always the same.
        """
        generator = generator or torch.Generator().manual_seed(self.config.seed)
        if num is None:
            return self._start(generator)
        starts = [self._start(generator) for _ in range(num)]
        return {name: torch.stack([start[name] for start in starts]) for name in starts[0]}

    def evaluate(self, weights: dict[str, Tensor], coords: Tensor) -> Tensor:
        """Values of fields at points; pure and differentiable.

        Args:
            weights: One tensor ``(N, *shape)`` per entry of the layout.
            coords: Points ``(P, D)`` for all fields or ``(N, P, D)``.

        Returns:
            Values ``(N, P, C)``.
        """
        return self.evaluate_encoded(weights, self.encoding(coords)).mT

    def evaluate_encoded(self, weights: dict[str, Tensor], features: Tensor) -> Tensor:
        """Values ``(N, C, P)`` for points that :attr:`encoding` has encoded, ``(F, P)`` or ``(N, F, P)``."""
        layer_weights, layer_biases = self.layers(weights)
        return apply_layers(self.field_config, features, layer_weights, layer_biases)

    def canonical(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The one member of each class of weights that differ by the gauge of their factors (:mod:`wsrl.fields.gauge`).

        Args:
            weights: Weights ``(N, *shape)``, or ``shape`` of one field.

        Returns:
            Weights of the same functions. Standalone fields have no factors and stay as they are; the order and the
            signs of their neurons are what :mod:`wsrl.symmetry.fields.canonical` aligns to a template.

        Source: arXiv 2603.15990.
        """
        return gauge.canonical(self.layout, weights)

    def to(self, device: torch.device | str) -> "Representation":
        """Move the base field and the encoding to a device, in place; starts are always drawn on the CPU."""
        self.encoding.to(device)
        if self.base is not None:
            self.base.to(device)
        return self

    def to_dict(self) -> dict:
        """Plain values from which :func:`~wsrl.fields.open.open_representation` rebuilds the representation."""
        return {**self.config.to_dict(), "in_features": self.in_features, "out_features": self.out_features}

    def _set_up(self) -> None:
        raise NotImplementedError

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        raise NotImplementedError

    def parts(self) -> list[LayerParts]:
        """What every linear layer is made of, the output layer last."""
        raise NotImplementedError

    def layers(self, weights: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The weight and bias of every linear layer that ``weights`` stand for."""
        combined = [part.combined(weights) for part in self.parts()]
        return [weight for weight, _ in combined], [bias for _, bias in combined]


class StandaloneRepresentation(Representation):
    """``mlp`` and ``mlp_asym``: every field is a network of its own.

    ``mlp_asym`` freezes, in every hidden layer and the output layer, a fixed random set of weights at large random
    values. Source: W-Asymmetric networks, Lim et al., NeurIPS 2024.
    """

    def _set_up(self) -> None:
        shapes = self.field_config.layer_shapes(self.in_features, self.out_features)
        specs, self._frozen_values = [], {}
        for i, (fan_out, fan_in) in enumerate(shapes):
            # what permutes the neurons of the layer, and of the one before it; masks tell all of them apart
            neurons = None if i == len(shapes) - 1 or self.config.is_masked else self._neurons(i)
            inputs = None if i == 0 or self.config.is_masked else self._neurons(i - 1)
            name = f"layers.{i}.weight"
            frozen = self._freeze(name, i, fan_out, fan_in)
            group = {"group": f"layers.{i}", "token_axis": 0}
            specs.append(TensorSpec(name=name, shape=(fan_out, fan_in), axes=(neurons, inputs), frozen=frozen, **group))
            specs.append(TensorSpec(name=f"layers.{i}.bias", shape=(fan_out,), axes=(neurons,), **group))
        self.layout = Layout(tuple(specs))

    def _neurons(self, index: int) -> str:
        """What permutes the neurons of a hidden layer; a residual layer moves with the one that it is added to."""
        return f"neurons.{0 if self.field_config.residual else index}"

    def _freeze(self, name: str, index: int, fan_out: int, fan_in: int) -> str | None:
        if not self.config.is_masked or index == 0:  # the first layer sees coordinates: too few to lose any
            return None
        trainable = asymmetric_mask(fan_out, fan_in, self.config.mask_fraction, self._generator)
        weights, _ = initial_layers(self.field_config, self.in_features, self.out_features, self._generator)
        std = weights[index].std() * self.config.frozen_scale
        values = torch.randn(fan_out, fan_in, generator=self._generator) * std
        self._frozen_values[name] = (trainable, values)
        return TensorSpec.pack_frozen(trainable)

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        weights, biases = initial_layers(self.field_config, self.in_features, self.out_features, generator)
        start = {}
        for i, (weight, bias) in enumerate(zip(weights, biases)):
            name = f"layers.{i}.weight"
            if name in self._frozen_values:
                trainable, values = self._frozen_values[name]
                weight = torch.where(trainable, weight, values)
            start[name], start[f"layers.{i}.bias"] = weight, bias
        return start

    def parts(self) -> list[LayerParts]:
        names = [f"layers.{i}" for i in range(self.field_config.depth + 1)]
        return [LayerParts(weight=f"{name}.weight", bias=f"{name}.bias") for name in names]


class AdapterRepresentation(Representation):
    """``lora``, ``lora_asym``, ``mlora`` and ``mlora_asym``: a low-rank change of every hidden layer of the base field.

    The output layer and the biases stay those of the base. Source: arXiv 2512.01759, stage 2.
    """

    def _set_up(self) -> None:
        specs, self._masks, self._frozen_values = [], [], []
        for i, layer in enumerate(self.base.trunk.layers[:-1]):
            # a mask of A and frozen values of its own for each layer
            fan_out, fan_in = layer.weight.shape
            mask = torch.ones(self.config.rank, fan_in, dtype=torch.bool)
            if self.config.is_masked:
                mask = asymmetric_mask(self.config.rank, fan_in, self.config.mask_fraction, self._generator)
            std = self.config.init_std * self.config.frozen_scale
            self._masks.append(mask)
            self._frozen_values.append(torch.randn(mask.shape, generator=self._generator) * std)
            # the pair, whose rank components move together where no mask tells them apart
            ranks = None if self.config.is_masked else f"layers.{i}.rank"
            shapes = {"down": (self.config.rank, fan_in), "up": (fan_out, self.config.rank)}
            for axis, (factor, shape) in enumerate(shapes.items()):
                specs.append(
                    TensorSpec(
                        name=f"layers.{i}.{factor}",
                        shape=shape,
                        axes=tuple(ranks if a == axis else None for a in (0, 1)),
                        group=f"layers.{i}",
                        token_axis=axis,
                        frozen=TensorSpec.pack_frozen(mask) if factor == "down" else None,
                    )
                )
        self.layout = Layout(tuple(specs))

    @property
    def is_additive(self) -> bool:
        """Whether the adapter is LoRA's ``W + B A``."""
        return self.config.kind.startswith("lora")

    def _start(self, generator: torch.Generator) -> dict[str, Tensor]:
        start = {}
        for i, layer in enumerate(self.base.trunk.layers[:-1]):
            fan_out, fan_in = layer.weight.shape
            form = "add" if self.is_additive else self.config.form
            mask = self._masks[i]
            down, up = start_factors(fan_in, fan_out, self.config.rank, form, mask, self.config.init_std, generator)
            if self.is_additive or self.config.frozen_at == "random":  # large fixed values instead of zeros
                down = torch.where(mask, down, self._frozen_values[i])
            start[f"layers.{i}.down"], start[f"layers.{i}.up"] = down, up
        return start

    def parts(self) -> list[LayerParts]:
        form = "add" if self.is_additive else self.config.form
        *hidden, last = self.base.trunk.layers
        factors = [{"down": f"layers.{i}.down", "up": f"layers.{i}.up", "form": form} for i in range(len(hidden))]
        adapted = [LayerParts(weight=layer.weight, bias=layer.bias, **names) for layer, names in zip(hidden, factors)]
        return [*adapted, LayerParts(weight=last.weight, bias=last.bias)]
