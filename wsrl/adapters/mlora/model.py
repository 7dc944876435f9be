"""The tuner that puts mLoRA layers into a model."""

from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import get_pattern_key
from torch import nn

from wsrl.adapters.mlora.config import MLoraConfig
from wsrl.adapters.mlora.layer import MLoraLayer


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
        layer = MLoraLayer(target, adapter_name, peft_config, rank, current_key)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)
