"""Parts of a diffusion pipeline that compute in float32 also where the rest of it is put into a shorter type."""

from typing import Any

import torch


class KeepsFloat32:
    """Stays in float32 when a pipeline goes to bfloat16 or float16; mixed in before ``ModelMixin``.

    Statistics of weights and the network that draws a field take no time beside the denoiser, and 8 bits of a mean
    or of a frequency are an error in every field that could not be taken back by ``.to(torch.float32)``.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any):
        """Load it in float32 at least, whatever ``torch_dtype`` says."""
        for name in ("torch_dtype", "dtype"):
            if is_short(kwargs.get(name)):
                del kwargs[name]
        return super().from_pretrained(*args, **kwargs)

    def to(self, *args: Any, **kwargs: Any):
        """Move it, and take another type where that is as wide as float32."""
        device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        options = {"device": device, "dtype": None if is_short(dtype) else dtype, "memory_format": memory_format}
        given = {name: value for name, value in options.items() if value is not None}
        return super().to(**given, non_blocking=non_blocking) if given else self

    def half(self):
        """Stay as it is."""
        return self

    def bfloat16(self):
        """Stay as it is."""
        return self


def is_short(dtype: object) -> bool:
    """Whether a type has fewer bits than float32."""
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point and dtype.itemsize < torch.float32.itemsize
