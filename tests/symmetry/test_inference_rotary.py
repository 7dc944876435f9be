"""Rotary positions in the spellings of several code bases: heads permute, and the channels of values inside them."""

import pytest
import torch
import torch.nn.functional as F
from symmetry_networks import Computed, inferred_spec, noise
from torch import Tensor, nn

SIZE, HALF = 4, 2


def angles(z: Tensor, copies: int) -> Tensor:
    """Angles ``(T, HALF * copies)`` for queries or keys ``(..., T, SIZE)``."""
    return torch.outer(torch.arange(z.shape[-2]).to(z.dtype), torch.tensor([1, 0.1], dtype=z.dtype)).repeat(1, copies)


def turned_by_cat(z):
    return torch.cat([-z[..., HALF:], z[..., :HALF]], -1)


def turned_by_chunk(z):
    first, second = z.chunk(2, -1)
    return torch.cat((-second, first), -1)


def turned_by_stack(z):
    first, second = z.unflatten(-1, (2, HALF)).unbind(-2)
    return torch.stack((-second, first), -2).flatten(-2)


def turned_by_matrix(z):
    return z @ torch.tensor([[0.0, 0, 1, 0], [0, 0, 0, 1], [-1, 0, 0, 0], [0, -1, 0, 0]]).to(z.dtype)


TURNS = {"cat": turned_by_cat, "chunk": turned_by_chunk, "stack": turned_by_stack, "matrix": turned_by_matrix}


def whole_first(turn):
    return lambda z: z * angles(z, 2).cos() + turn(z) * angles(z, 2).sin()


def turned_first(turn):
    return lambda z: turn(z) * angles(z, 2).sin() + z * angles(z, 2).cos()


def halves_apart(z):
    first, second = z.chunk(2, -1)
    cos, sin = angles(z, 1).cos(), angles(z, 1).sin()
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def halves_written(z):
    out, cos, sin = torch.empty_like(z), angles(z, 1).cos(), angles(z, 1).sin()
    out[..., :HALF] = z[..., :HALF] * cos - z[..., HALF:] * sin
    out[..., HALF:] = z[..., HALF:] * cos + z[..., :HALF] * sin
    return out


def interleaved(z):
    turned = torch.stack((-z[..., 1::2], z[..., ::2]), -1).flatten(-2)
    return turned * angles(z, 1).sin().repeat_interleave(2, -1) + z * angles(z, 1).cos().repeat_interleave(2, -1)


def complex_pairs(z):
    pairs = torch.view_as_complex(z.reshape(*z.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles(z, 1)), angles(z, 1))).flatten(-2)


ROTARIES = {
    **{f"whole first, by {name}": whole_first(turn) for name, turn in TURNS.items()},
    **{f"turned first, by {name}": turned_first(turn) for name, turn in TURNS.items()},
    "halves apart": halves_apart,
    "halves written": halves_written,
    "interleaved": interleaved,
    "complex pairs": complex_pairs,
    "scaled before": lambda z: turned_first(turned_by_cat)(0.5 * z),
    "scaled after": lambda z: 0.5 * turned_first(turned_by_cat)(z),
}


def attending(rotary, num_heads: int, num_keys: int) -> nn.Module:
    def run(self, x):
        x = self.i(x)
        q, k, v = (layer(x).view(2, 5, -1, SIZE).transpose(1, 2) for layer in (self.q, self.k, self.v))
        q, k = rotary(q), rotary(k).repeat_interleave(num_heads // num_keys, 1)
        v = v[:, :, None].expand(-1, -1, num_heads // num_keys, -1, -1).flatten(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o(out.transpose(1, 2).flatten(2))

    keys = {name: nn.Linear(6, num_keys * SIZE) for name in "kv"}
    return Computed(run, i=nn.Linear(3, 6), q=nn.Linear(6, num_heads * SIZE), o=nn.Linear(num_heads * SIZE, 2), **keys)


@pytest.mark.parametrize("name", ROTARIES)
def test_heads_permute_whatever_the_order_of_operations(name):
    """samuela/git-re-basin#6, merging-text-transformers#7: LLaMA's rotate_half, and what others write."""
    spec = inferred_spec(attending(ROTARIES[name], 4, 4), noise(2, 5, 3))
    assert spec.sizes == {"i": 6, "q.heads": 4, "v.channels": 4}
    assert spec.within == {"v.channels": ("q.heads",)}


@pytest.mark.parametrize("name", ROTARIES)
def test_groups_of_heads_that_share_keys_permute(name):
    spec = inferred_spec(attending(ROTARIES[name], 6, 2), noise(2, 5, 3))
    assert sorted(spec.sizes.items()) == [("i", 6), ("q.channels", 3), ("q.heads", 2), ("v.channels", 4)]
    assert spec.within == {"q.channels": ("q.heads",), "v.channels": ("q.heads",)}


@pytest.mark.parametrize("rows", ["chunk", "axis"])
@pytest.mark.parametrize("name", ["turned first, by chunk", "halves apart", "complex pairs"])
def test_heads_of_one_matrix_for_queries_keys_and_values(name, rows):
    def run(self, x):
        parts = self.qkv(x).chunk(3, -1) if rows == "chunk" else self.qkv(x).unflatten(-1, (3, -1)).unbind(2)
        q, k, v = (part.unflatten(-1, (4, SIZE)).transpose(1, 2) for part in parts)
        scores = torch.einsum("bhtd,bhsd->bhts", ROTARIES[name](q), ROTARIES[name](k)).softmax(-1)
        return self.o(torch.einsum("bhts,bhsd->bthd", scores, v).flatten(2))

    spec = inferred_spec(Computed(run, qkv=nn.Linear(3, 48), o=nn.Linear(16, 2)), noise(2, 5, 3))
    assert sorted(spec.sizes.values()) == [4, 4] and len(spec.within) == 1
