"""Parts of a diffusion pipeline that compute in float32 whatever type the rest of it is put into."""

from typing import Any

import torch


class KeepsFloat32:
    """Stays in float32 when a pipeline goes to another type; mixed in before ``ModelMixin``.

    Statistics of weights and the network that draws a field take no time beside the denoiser, and fields are float32 in
    stores. 8 bits of a mean or of a frequency are an error in every field that no ``.to(torch.float32)`` takes back.
    """

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any):
        """Load it in float32, whatever ``torch_dtype`` says."""
        kept = {name: value for name, value in kwargs.items() if name not in ("torch_dtype", "dtype")}
        return super().from_pretrained(*args, **kept)

    def to(self, *args: Any, **kwargs: Any):
        """Move it to a device, and leave its type."""
        device, _, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)
        moves = {"device": device, "memory_format": memory_format}
        moves = {name: value for name, value in moves.items() if value is not None}
        return super().to(**moves, non_blocking=non_blocking) if moves else self

    def half(self):
        """Stay as it is."""
        return self

    def bfloat16(self):
        """Stay as it is."""
        return self

    def double(self):
        """Stay as it is."""
        return self
