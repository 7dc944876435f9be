"""Read PEFT adapter folders as fields: those that ``wsrl export --format peft`` writes, and plain LoRA on our trunk."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wsrl.errors import SignalError, UserError
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fields.tensor_files import as_weights, match_names, read_tensors

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
# What an adapter may have beyond a pair of factors on a weight, with the value that means nothing.
_NOTHING = {
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "lora_bias": (False, None),
}


def adapter_files(folder: Path) -> tuple[Path, Path]:
    """The configuration and the weights of an adapter folder."""
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    return folder / CONFIG, weights


def read_config(folder: Path) -> dict:
    """The configuration of an adapter.

    Raises:
        SignalError: It is missing, or no JSON object.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SignalError(
            f"{folder.name}/{CONFIG} cannot be read ({error})", allowed="as PEFT writes it", do="leave the folder out"
        ) from error
    if not isinstance(config, dict) or config.get("peft_type") not in ("LORA", "MLORA"):
        adapter_type = config.get("peft_type") if isinstance(config, dict) else config
        raise SignalError(
            f"{folder.name} is an adapter of type {adapter_type!r}", allowed="LORA, MLORA", do="leave it out"
        )
    # ranks and factors of single modules stand beside the common ones
    ranks = [config.get("r"), *_pattern(config, "rank_pattern").values()]
    alphas = [config.get("lora_alpha", 1), *_pattern(config, "alpha_pattern").values()]
    whole = all(isinstance(rank, int) and rank > 0 for rank in ranks)
    if not whole or not all(isinstance(alpha, int | float) and math.isfinite(alpha) and alpha for alpha in alphas):
        raise SignalError(
            f"{folder.name} has ranks {ranks}, alphas {alphas}", allowed="ranks from 1", do="leave it out"
        )
    return config


def _pattern(config: dict, name: str) -> dict:
    """Values by module; PEFT leaves the key out or empty where there are none."""
    pattern = config.get(name)
    return pattern if isinstance(pattern, dict) else {}


def guess_representation(folder: Path, base: BaseField) -> Representation:
    """The representation of plain adapters, by the configuration of one of them.

    Raises:
        UserError: It has masks, whose rule only a description of the network tells.
    """
    config = read_config(folder)
    if config["peft_type"] == "LORA":
        return Representation.build(RepresentationConfig(kind="lora", rank=config["r"]), base)
    if config.get("mask_fraction"):
        raise UserError(
            f"the adapter {folder.name} has masks, and nothing says which entries of all fields are frozen",
            allowed="the network.yaml that wsrl export wrote beside the adapters",
            do="pass it with --network",
        )
    return Representation.build(RepresentationConfig(kind="mlora", rank=config["r"], form=config["form"]), base)


@dataclass(frozen=True, kw_only=True)
class AdapterReader:
    """Reads the fields of one representation from adapter folders.

    Attributes:
        representation: The kind of adapter, with its base field.
        rounding: Accept a scaling that is not exact in the factors, and round them.
    """

    representation: Representation
    rounding: bool = False

    def read(self, folder: Path) -> dict[str, Tensor]:
        """Weights of the field in a folder, float32.

        Raises:
            SignalError: The folder cannot be read or does not fit; the message says why.
        """
        config, name = read_config(folder), folder.name
        self._check_config(config, name)
        tensors = {key.removeprefix(_PREFIX): tensor for key, tensor in read_tensors(adapter_files(folder)[1]).items()}
        masks = {key: tensors.pop(key) for key in list(tensors) if key.endswith(".mlora_mask")}
        form, tail = ("lora", ".weight") if config["peft_type"] == "LORA" else ("mlora", "")
        factors = {"down": f"{form}_A{tail}", "up": f"{form}_B{tail}"}
        layout = self.representation.layout
        names = {spec.name: f"{spec.group}.{factors[spec.name.rpartition('.')[2]]}" for spec in layout}
        weights = as_weights(match_names(tensors, names, (), name), layout, name, self.rounding)
        self._check_masks(masks, name)
        return self._scaled(weights, config, name)

    def _check_config(self, config: dict, name: str) -> None:
        """Refuse an adapter that does more, or is another one, than the representation."""
        ours = self.representation.config
        expected = {"peft_type": "LORA" if ours.kind.startswith("lora") else "MLORA"}
        if expected["peft_type"] == "MLORA":
            expected["form"] = ours.form
        wrong = {key: config.get(key) for key, value in expected.items() if config.get(key) != value}
        more = {key: config[key] for key, nothing in _NOTHING.items() if config.get(key, nothing[0]) not in nothing}
        if wrong or more:
            raise SignalError(
                f"{name} has {', '.join(f'{key} {value!r}' for key, value in (wrong | more).items())}",
                allowed=", ".join(f"{key} {value}" for key, value in expected.items()) + ", and nothing but factors",
                do="leave it out, or import it apart",
            )

    def _check_masks(self, masks: dict[str, Tensor], name: str) -> None:
        """Refuse a mask that is not the one of all fields."""
        if self.representation.config.kind.startswith("lora"):
            return  # PEFT's LoRA has none: what is frozen, only the description says
        for spec in self.representation.layout:
            if spec.name.endswith(".down"):
                mask = masks.pop(f"{spec.group}.mlora_mask", torch.ones(spec.shape, dtype=torch.bool))
                if mask.shape != spec.shape or not torch.equal(mask.bool(), spec.trainable()):
                    masks[spec.name] = mask
        if masks:
            raise SignalError(
                f"{name} has another mask in {', '.join(masks)}",
                allowed="the mask of the representation",
                do="pass the network.yaml of its export with --network, or leave it out",
            )

    def _scaled(self, weights: dict[str, Tensor], config: dict, name: str) -> dict[str, Tensor]:
        """LoRA's factor on ``B A`` multiplied into ``B``, where that is exact."""
        if config["peft_type"] != "LORA":
            return weights
        scaled = {}
        for key, tensor in weights.items():
            factor = _scaling(config, key.rpartition(".")[0]) if key.endswith(".up") else 1.0
            scaled[key] = tensor if factor == 1.0 else tensor * factor
            exact = math.frexp(factor)[0] in (0.5, -0.5) and torch.equal(scaled[key] / factor, tensor)
            if not exact and not self.rounding:
                raise SignalError(
                    f"{name} scales {key} by {factor:g}, which float32 cannot multiply in exactly",
                    allowed="a scaling that is a power of two",
                    do="pass --rounding true to round the factors",
                )
        return scaled


def _scaling(config: dict, module: str) -> float:
    """``alpha / r``, or ``alpha / sqrt(r)``, of a module."""
    rank = _pattern(config, "rank_pattern").get(module, config["r"])
    alpha = _pattern(config, "alpha_pattern").get(module, config.get("lora_alpha", rank))
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
