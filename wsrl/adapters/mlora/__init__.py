"""mLoRA, multiplicative low-rank adaptation, as a PEFT method; importing this package registers it with PEFT."""

from peft.utils import PeftType, register_peft_method

from wsrl.adapters.mlora.config import MLoraConfig
from wsrl.adapters.mlora.layer import MLoraLayer
from wsrl.adapters.mlora.model import MLoraModel

__all__ = ["MLoraConfig", "MLoraLayer", "MLoraModel"]

assert MLoraConfig().peft_type == PeftType("MLORA")
register_peft_method(name="mlora", config_cls=MLoraConfig, model_cls=MLoraModel)
