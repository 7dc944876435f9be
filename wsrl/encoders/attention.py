"""Attention, and the three transformer blocks that are made of it.

Letters: B fields, S tokens, K tokens that are looked at, H width of a token, A attention heads.

Source: Vaswani et al. 2017, arXiv 1706.03762; Xiong et al. 2020, arXiv 2002.04745 (norms before the branches);
Peebles and Xie 2023, arXiv 2212.09748 (adaptive layer norm that starts at the identity).
"""

from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention


def attend(query: Tensor, key: Tensor, value: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    """Multi-head attention of tokens that are projected already.

    Args:
        query: Projections ``(B, S, H)`` of the tokens that look.
        key: Projections ``(B, K, H)`` of the tokens that they look at.
        value: What those pass on ``(B, K, H)``.
        num_heads: Number A of heads; divides H.
        mask: True ``(S, K)`` where a row may look at a column; None lets all look at all.

    Returns:
        What all heads read, side by side ``(B, S, H)``.
    """
    heads = (part.unflatten(-1, (num_heads, -1)).transpose(1, 2) for part in (query, key, value))  # (B, A, ., H / A)
    return scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)  # (B, S, H)


def feed_forward(width: int, expansion: int, approximate: str = "none") -> nn.Sequential:
    """The branch of a block that treats each token ``(..., H)`` alone; ``approximate`` is that of torch's GELU."""
    hidden = width * expansion
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(approximate=approximate), nn.Linear(hidden, width))


class AttentionBlock(nn.Module):
    """Attention among tokens and a feed-forward branch, each after a layer norm and added to what it read.

    Args:
        width: Size H of a token.
        heads: Attention heads; divides the width.
        expansion: Hidden units of the feed-forward branch, in widths.
        rate: Share of the units of each branch that is dropped in training.
    """

    def __init__(self, width: int, heads: int, expansion: int, rate: float):
        super().__init__()
        self.heads, self.rate = heads, rate
        self.norm_attention, self.norm_forward = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.forward_branch = feed_forward(width, expansion)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens ``(B, S, H)`` of the same shape."""
        projected = self.qkv(self.norm_attention(tokens)).chunk(3, dim=-1)  # 3 x (B, S, H)
        tokens = tokens + dropout(self.out(attend(*projected, self.heads)), self.rate, self.training)
        return tokens + dropout(self.forward_branch(self.norm_forward(tokens)), self.rate, self.training)


class CrossBlock(nn.Module):
    """Tokens look at other tokens, then a feed-forward branch.

    Args:
        width: Size H of a token.
        heads: Attention heads; divides the width.
        expansion: Hidden units of the feed-forward branch, in widths.
    """

    def __init__(self, width: int, heads: int, expansion: int):
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_latent, self.norm_forward = (nn.LayerNorm(width) for _ in range(3))
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out, self.forward_branch = nn.Linear(width, width), feed_forward(width, expansion)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        """Tokens ``(B, S, H)`` that have looked at others ``(B, K, H)``."""
        key, value = self.key_value(self.norm_latent(others)).chunk(2, dim=-1)  # (B, K, H) each
        tokens = tokens + self.out(attend(self.query(self.norm_query(tokens)), key, value, self.heads))
        return tokens + self.forward_branch(self.norm_forward(tokens))


class SelfAttention(nn.Module):
    """Projections, attention among tokens, and a last projection: the branch of :class:`AdaptiveBlock`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """What tokens ``(B, S, H)`` read from each other where ``mask (S, S)`` is true."""
        return self.out(attend(*self.qkv(tokens).chunk(3, dim=-1), self.heads, mask))


class AdaptiveBlock(nn.Module):
    """A block whose norms are shifted, scaled and gated by a condition; the identity at the start.

    Args:
        width: Size H of a token and of the condition.
        heads: Attention heads; divides the width.
        expansion: Hidden units of the feed-forward branch, in widths.
    """

    def __init__(self, width: int, heads: int, expansion: int):
        super().__init__()
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False)
        self.attention = SelfAttention(width, heads)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False)
        self.mlp = feed_forward(width, expansion, approximate="tanh")
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        nn.init.zeros_(self.modulation[1].weight)
        nn.init.zeros_(self.modulation[1].bias)

    def forward(self, tokens: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """Tokens ``(B, S, H)`` under a condition ``(B, H)``."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition)[:, None].chunk(6, dim=-1)
        tokens = tokens + gate_a * self.attention(self.norm_attention(tokens) * (1 + scale_a) + shift_a, mask)
        return tokens + gate_m * self.mlp(self.norm_mlp(tokens) * (1 + scale_m) + shift_m)
