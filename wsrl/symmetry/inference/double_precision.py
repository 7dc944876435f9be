"""Running a network in float64 throughout, also where it computes in fewer bits inside whatever it gets."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

WIDE = {
    torch.float32: torch.float64,
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.complex64: torch.complex128,
    torch.complex32: torch.complex128,
}
"""What stands in for narrower types."""


class _InDouble(TorchDispatchMode):
    """Gives every operation wide numbers and asks it for such.

    Casts to narrower types, as norms of language models have them, become casts to float64. Tensors that are written
    to, and views of narrow ones, stay what they are: a copy would part from what it shows.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # wrapping for the compiler would import it, which takes seconds

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        schema, kwargs = function._schema, dict(kwargs or {})
        if any(returned.alias_info is not None and not returned.alias_info.is_write for returned in schema.returns):
            return function(*args, **kwargs)
        named = dict(zip((argument.name for argument in schema.arguments), args)) | kwargs
        written = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        widened = {name: value if name in written else tree_map(_widened, value) for name, value in named.items()}
        if "half_to_float" in widened:
            widened["half_to_float"] = False
        args = [widened.pop(a.name) for a in schema.arguments[: len(args)]]
        return function(*args, **widened)


def _widened(leaf):
    if isinstance(leaf, Tensor):
        return leaf.to(WIDE[leaf.dtype]) if leaf.dtype in WIDE else leaf
    return WIDE.get(leaf, leaf) if isinstance(leaf, torch.dtype) else leaf


@contextmanager
def in_double() -> Iterator[None]:
    """Run everything in float64, as far as torch computes it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _InDouble():
            yield
    finally:
        torch.set_default_dtype(before)
