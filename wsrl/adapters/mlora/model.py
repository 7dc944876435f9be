"""The tuner that puts mLoRA layers into a model."""

import torch
from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import get_pattern_key
from torch import nn

from wsrl.adapters.mlora.config import MLoraConfig
from wsrl.adapters.mlora.layer import MLoraLayer
from wsrl.errors import UserError


class MLoraModel(BaseTuner):
    """A model whose targeted layers have their frozen weights scaled by low-rank factors.

    Use ``peft.get_peft_model(model, MLoraConfig(...))``; see :class:`MLoraConfig` for the options.

    Source: arXiv 2512.01759, section 3.2; with ``form="one_plus"`` and one adapter it is HiRA.
    """

    prefix: str = "mlora_"
    tuner_layer_cls = MLoraLayer
    target_module_mapping: dict[str, list[str]] = {}  # noqa: RUF012 (PEFT's own annotation)

    def _create_and_replace(
        self,
        peft_config: MLoraConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs,
    ) -> None:
        key = get_pattern_key(peft_config.rank_pattern.keys(), current_key)
        rank = peft_config.rank_pattern.get(key, peft_config.r)
        if isinstance(target, MLoraLayer):
            target.update_layer(adapter_name, peft_config, rank, current_key)
            return
        check_use(self.model, parent, target, current_key)
        layer = MLoraLayer(target, adapter_name, peft_config, rank, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)


def check_use(model: nn.Module, parent: nn.Module, target: nn.Module, name: str) -> None:
    """Refuse a layer that its model uses in a way that an adapter around it would not see.

    Args:
        model: The whole model.
        parent: The module that holds the layer.
        target: The layer.
        name: Its name in the model.

    Raises:
        UserError: The parent reads the weight without calling the layer, or the model has the layer in two places.
    """
    # the parent calls the layer
    reads_weight = isinstance(parent, nn.MultiheadAttention)
    is_fast = isinstance(parent, nn.TransformerEncoderLayer) and torch.backends.mha.get_fastpath_enabled()
    if reads_weight or is_fast:
        do = "torch.backends.mha.set_fastpath_enabled(False) first" if is_fast else "leave it out with exclude_modules"
        raise UserError(
            f"mLoRA cannot adapt {name}: torch's {type(parent).__name__} reads its weight and does not call the layer",
            allowed="layers that are called",
            do=do,
        )
    # and no other module has it too
    names = [path for path, module in model.named_modules(remove_duplicate=False) if module is target]
    if len(names) > 1:
        raise UserError(
            f"mLoRA cannot adapt {name}: the model uses one layer under {len(names)} names, {', '.join(names)}",
            allowed="layers that stand in one place",
            do="give each place a layer of its own; they may share the weight",
        )
