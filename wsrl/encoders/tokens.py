"""Cutting vectors into tokens: a field's trainable weights by rank component, neuron or layer, latents as they are.

Letters: B fields, V trainable weights, T tokens of a layer, D length of a token.
"""

import torch
from torch import Tensor, nn

from wsrl.fields.layout import Layout, TensorSpec

CUTS = ("component", "layer")


class WeightTokeniser(nn.Module):
    """Turns vectors ``(B, V)`` of trainable weights into one array of tokens per layer, and back exactly.

    The tensors of a layer (``TensorSpec.group``) are cut along their ``token_axis`` and laid side by side: an adapter's
    token ``i`` is the pair (row ``i`` of A, column ``i`` of B), a standalone layer's token is a neuron's incoming
    weights and its bias. Masked entries hold zero in the tokens, whatever the vector, and are dropped on the way back.

    Args:
        layout: Layout of the fields.
        cut: ``component`` as above, or ``layer`` for one token per layer (arXiv 2303.17015, HyperDiffusion).
    """

    def __init__(self, layout: Layout, cut: str = "component"):
        super().__init__()
        assert cut in CUTS, f"cut {cut!r}"
        self.groups = tuple(layout.groups())
        positions = vector_positions(layout)
        tables = [_group_table(specs, positions) for specs in layout.groups().values()]
        if cut == "layer":
            tables = [table.reshape(1, -1) for table in tables]
        self.shapes = tuple(tuple(table.shape) for table in tables)
        for number, table in enumerate(tables):
            self.register_buffer(f"table_{number}", table, persistent=False)
        everything = torch.cat([table.flatten() for table in tables])
        inverse = torch.empty(layout.num_trainable, dtype=torch.long)
        kept = (everything < layout.num_trainable).nonzero().squeeze(1)
        inverse[everything[kept]] = kept
        self.register_buffer("inverse", inverse, persistent=False)

    def forward(self, vector: Tensor) -> list[Tensor]:
        """Tokens ``(B, T, D)`` of each layer, in the order of ``groups``."""
        padded = torch.cat([vector, vector.new_zeros(*vector.shape[:-1], 1)], dim=-1)  # (B, V + 1): V is frozen, zero
        return [padded[..., getattr(self, f"table_{number}")] for number in range(len(self.groups))]  # (B, T, D)

    def join(self, tokens: list[Tensor]) -> Tensor:
        """The vectors ``(B, V)`` of tokens; inverse of calling the tokeniser."""
        return torch.cat([part.flatten(-2) for part in tokens], dim=-1)[..., self.inverse]


class LatentTokeniser(nn.Module):
    """Latents ``(B, T * D)`` as T tokens of length D, in one group.

    Args:
        count: Tokens T.
        size: Length D of a token.
    """

    def __init__(self, count: int, size: int):
        super().__init__()
        self.groups, self.shapes = ("latent",), ((count, size),)

    def forward(self, vector: Tensor) -> list[Tensor]:
        """Tokens ``(B, T, D)``, in a list of one."""
        return [vector.unflatten(-1, self.shapes[0])]

    def join(self, tokens: list[Tensor]) -> Tensor:
        """The vectors of tokens; inverse of calling the tokeniser."""
        return tokens[0].flatten(-2)


def vector_positions(layout: Layout) -> dict[str, Tensor]:
    """For each tensor of the layout the position of every entry in the trainable vector; V where it is frozen."""
    mask = layout.trainable()
    positions = torch.where(mask, mask.cumsum(0) - 1, layout.num_trainable)
    return layout.unflatten(positions)


def _group_table(specs: tuple[TensorSpec, ...], positions: dict[str, Tensor]) -> Tensor:
    """Positions ``(T, D)`` of a layer's tokens in the trainable vector."""
    cut = [positions[spec.name].movedim(spec.token_axis, 0) for spec in specs]  # (T, ...) each
    counts = {len(part) for part in cut}
    assert len(counts) == 1, f"the tensors of {specs[0].group} disagree on the number of tokens: {sorted(counts)}"
    return torch.cat([part.reshape(len(part), -1) for part in cut], dim=1)  # (T, D)
