"""Any representation from the plain values that a store or a model keeps of it."""

from collections.abc import Mapping

from wsrl.fields.foreign import Convention, ForeignRepresentation
from wsrl.fields.modulated_base import BaseField
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig


def open_representation(data: Mapping, base: BaseField | None = None) -> Representation:
    """Rebuild a representation from ``Representation.to_dict``.

    Args:
        data: Plain values; with a ``convention`` they are an imported network's.
        base: The base field of an adapter.
    """
    data = dict(data)
    sizes = {name: data.pop(name) for name in ("in_features", "out_features")}
    convention = data.pop("convention", None)
    config = RepresentationConfig(**{**data, "field": FieldConfig(**data["field"])})
    if convention is not None:
        return ForeignRepresentation(config, Convention(**convention), **sizes)
    return Representation.build(config, base, **sizes)
