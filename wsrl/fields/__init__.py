"""How weights become a field."""

from wsrl.fields.layout import Layout, TensorSpec
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import KINDS, Representation, RepresentationConfig

__all__ = [
    "KINDS",
    "BaseField",
    "BaseFieldConfig",
    "FieldConfig",
    "Layout",
    "Representation",
    "RepresentationConfig",
    "TensorSpec",
]
