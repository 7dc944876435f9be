"""A fitted field as a PEFT adapter of its base field's trunk.

Letters: for each adapted layer ``<name>.down`` is A ``(rank, in)`` and ``<name>.up`` is B ``(out, rank)``.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wsrl.adapters.scaling import ANY_FORM
from wsrl.errors import UserError
from wsrl.options import check_values

ADAPTER_NAME = "default"


def export_field(
    weights: Mapping[str, Tensor],
    *,
    form: str,
    trunk: nn.Module,
    out_dir: str | Path,
    masks: Mapping[str, Tensor] | None = None,
) -> None:
    """Write one adapter field as a folder that ``PeftModel.from_pretrained(trunk, out_dir)`` loads.

    A multiplicative field becomes an mLoRA adapter (import ``wsrl.adapters.mlora`` before loading it), an additive one
    PEFT's own LoRA with a scaling of 1. LoRA has no masks: frozen entries are written with their values, and PEFT would
    train them.

    Args:
        weights: Factors of one field, ``<module of the trunk>.down`` and ``.up``, without a batch axis.
        form: One of the multiplicative forms, or ``add``.
        trunk: The module that the field adapts; it is not changed.
        out_dir: Folder to write ``adapter_config.json`` and ``adapter_model.safetensors`` in.
        masks: For each ``<module>.down`` with frozen entries its boolean mask, true where trainable.

    Raises:
        UserError: If the weights do not fit the trunk, or the masks the weights.
    """
    from peft import get_peft_model

    # Factors and masks must fit the layers that they adapt.
    check_values({"form": form}, form=ANY_FORM)
    factors = layer_factors(weights, trunk)
    masks = {} if form == "add" else {key: mask for key, mask in (masks or {}).items() if not mask.all()}
    _check_masks(masks, weights)
    # PEFT wraps a copy of the trunk; its own tensors are then overwritten.
    model = get_peft_model(copy.deepcopy(trunk), _peft_config(factors, form, masks))
    with torch.no_grad():
        for name, (down, up) in factors.items():
            layer = model.base_model.model.get_submodule(name)
            for parameter, value in zip(_parameters(layer, form), (down, up)):
                parameter.copy_(value)
            if masks:
                layer.mlora_mask[ADAPTER_NAME].copy_(masks.get(f"{name}.down", torch.ones_like(down, dtype=torch.bool)))
    model.save_pretrained(str(out_dir))


def layer_factors(weights: Mapping[str, Tensor], trunk: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    """The pair ``(A, B)`` of each adapted module, by its name in ``trunk``; shapes are checked against the trunk."""
    # a pair for each adapted module
    factors = {
        key.removesuffix(".down"): (weights[key], weights.get(f"{key.removesuffix('.down')}.up"))
        for key in weights
        if key.endswith(".down")
    }
    modules = dict(trunk.named_modules())
    if not factors or 2 * len(factors) != len(weights):
        raise UserError(
            f"Weights named {', '.join(weights) or 'nothing'}",
            allowed="<module>.down and <module>.up for each adapted module",
            do="export a field of an adapter kind (lora or mlora)",
        )
    # each pair has the sides of the module's weight, and one rank
    for name, (down, up) in factors.items():
        weight = getattr(modules.get(name), "weight", None)
        actual = None if up is None else (up.shape[0], up.shape[1] - down.shape[0], down.shape[1])
        if weight is None or actual != (weight.shape[0], 0, weight[0].numel()):
            raise UserError(
                f"The factors of {name} do not fit the base field",
                allowed="down (rank, in) and up (out, rank) of a layer of the base field that the field was fitted on",
            )
    return factors


def _check_masks(masks: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Refuse a mask whose frozen entries are not there or not zero: mLoRA would give another field."""
    for key, mask in masks.items():
        down = weights.get(key)
        if down is None or down.shape != mask.shape or bool((down[~mask] != 0).any()):
            raise UserError(
                f"The mask of {key} does not fit the weights",
                allowed="a mask (rank, in) of a down factor that is zero where the mask is false",
                do="export the field with the masks that it was fitted with",
            )


def _peft_config(factors: dict[str, tuple[Tensor, Tensor]], form: str, masks: dict[str, Tensor]):
    """The configuration that has a place for these factors and masks."""
    # one common rank, and a pattern of those that differ
    ranks = {name: down.shape[0] for name, (down, _) in factors.items()}
    rank = max(ranks.values())
    common = {
        "r": rank,
        "target_modules": sorted(factors),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "inference_mode": True,
    }
    if form == "add":
        from peft import LoraConfig

        alphas = dict(common["rank_pattern"])
        return LoraConfig(lora_alpha=rank, alpha_pattern=alphas, **common)
    from wsrl.adapters.mlora import MLoraConfig

    frozen = sum(int((~mask).sum()) for mask in masks.values())
    fraction = frozen / sum(down.numel() for down, _ in factors.values())
    return MLoraConfig(form=form, mask_fraction=fraction, **common)


def _parameters(layer: nn.Module, form: str) -> tuple[Tensor, Tensor]:
    """The factors ``(A, B)`` of a layer of PEFT's LoRA or of mLoRA."""
    if form == "add":
        return layer.lora_A[ADAPTER_NAME].weight, layer.lora_B[ADAPTER_NAME].weight
    return layer.mlora_A[ADAPTER_NAME], layer.mlora_B[ADAPTER_NAME]
