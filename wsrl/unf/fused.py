"""Mixing in one pass over the largest arrays, by a C++ kernel on CPUs.

What :func:`wsrl.unf.mixing.mix` does in eight passes over the entries of a tensor takes one for the result and one for
the gradient here, and the means that the next layer needs fall off on the way.

Letters: B networks, P, Q, F axes of a tensor (matrices have no F, in all shapes below), C channels in, D channels out,
E numbers before the nonlinearity (D, or 2 D where the second half gates the first).
"""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from wsrl.unf import native
from wsrl.unf.nonlinearity import Nonlinearity


class Mixed(NamedTuple):
    """Result of mixing and its means.

    Attributes:
        out: Features ``(B, P, Q, F, D)``.
        by_pf: Mean over Q, ``(B, P, F, D)``.
        by_qf: Mean over P, ``(B, Q, F, D)``.
        by_pq: Mean over F, ``(B, P, Q, D)``; None for matrices.
        square: Mean square of each channel, ``(B, D)``.
    """

    out: Tensor
    by_pf: Tensor
    by_qf: Tensor
    by_pq: Tensor | None
    square: Tensor


def can_fuse(values: Tensor, weight: Tensor, gated: bool) -> bool:
    """Whether the kernel takes features ``(B, P, Q, F, C)`` or ``(B, P, Q, C)`` and a matrix ``(..., C, E)``."""
    floats = values.dtype == weight.dtype == torch.float32 and values.device.type == weight.device.type == "cpu"
    fits = values.numel() > 0 and values.shape[3:-1] != (1,) and weight.shape[-1] % (32 if gated else 16) == 0
    return floats and fits and native.load()[0] is not None


def fused_mix(
    values: Tensor,
    weight: Tensor,
    by_pf: Tensor | None = None,
    by_qf: Tensor | None = None,
    by_pq: Tensor | None = None,
    *,
    nonlinearity: Nonlinearity,
) -> Mixed:
    """The nonlinearity of ``values @ weight + by_pf + by_qf + by_pq``, with means.

    Args:
        values: Features ``(B, P, Q, F, C)``.
        weight: Matrix ``(C, E)`` of all networks, or ``(B, C, E)``.
        by_pf: Addend ``(B, P, F, E)`` or None.
        by_qf: Addend ``(B, Q, F, E)`` or None.
        by_pq: Addend ``(B, P, Q, E)`` or None.
        nonlinearity: What follows.
    """
    weight = weight.unsqueeze(0) if weight.ndim == 2 else weight
    return Mixed(*_FusedMix.apply(values, weight, by_pf, by_qf, by_pq, nonlinearity))


def _addresses(kind: type, tensors: dict[str, Tensor | None], **settings):
    """A structure of the kernel with the addresses of tensors, null for None."""
    return kind(**settings, **{name: t.data_ptr() for name, t in tensors.items() if t is not None})


class _FusedMix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, weight, by_pf, by_qf, by_pq, nonlinearity):
        (num, p, q, *last, c), e, threads = values.shape, weight.shape[-1], torch.get_num_threads()
        d = e // 2 if nonlinearity.gated else e
        chunks = 1 if num >= threads else min(p, -(-threads // num))  # of P: what threads share where networks are few
        inputs = {"values": values, "weight": weight, "by_pf": by_pf, "by_qf": by_qf, "by_pq": by_pq}
        inputs = {name: None if tensor is None else tensor.contiguous() for name, tensor in inputs.items()}
        # What the kernel writes: the features and the means that the next layer needs.
        results = {
            "out": values.new_empty(num, p, q, *last, d),
            "mean_pf": values.new_empty(num, p, *last, d),
            "mean_qf": values.new_empty(num, chunks, q, *last, d),
            "mean_pq": values.new_empty(num, p, q, d) if last else None,
            "square": values.new_empty(num, chunks, d),
        }
        f = last[0] if last else 1
        sizes = {"num_networks": num, "p": p, "q": q, "f": f, "c": c, "d": d, "e": e, "chunks": chunks}
        sizes |= {"slope": nonlinearity.slope, "gated": nonlinearity.gated, "weight_step": c * e * (len(weight) > 1)}
        mix = _addresses(native.Mix, inputs | results, **sizes)
        native.load()[0].wsrl_mix(ctypes.addressof(mix), threads)
        ctx.sizes = sizes
        ctx.save_for_backward(*inputs.values(), results["out"])
        ctx.set_materialize_grads(False)
        summed = {name: _of_chunks(results[name], chunks) for name in ("mean_qf", "square")}
        return tuple((results | summed).values())

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        *inputs, out = ctx.saved_tensors
        sizes, needed = ctx.sizes, ctx.needs_input_grad
        names = ("values", "weight", "by_pf", "by_qf", "by_pq")
        num, chunks, e = sizes["num_networks"], sizes["chunks"], sizes["e"]
        # Room for the gradients that are asked for; threads that share a network write to chunks of their own.
        results = {
            name: torch.empty_like(tensor) if tensor is not None and need else None
            for name, tensor, need in zip(names, inputs, needed)
        }
        results["weight"] = out.new_empty(num, chunks, sizes["c"], e)
        if results["by_qf"] is not None:
            results["by_qf"] = out.new_empty(num, chunks, *inputs[3].shape[1:])
        mix = _addresses(native.Mix, {**dict(zip(names, inputs)), "out": out}, **sizes)
        of_results = dict(zip(("out", "mean_pf", "mean_qf", "mean_pq", "square"), map(_contiguous, grads)))
        gradient = native.MixGradient(
            *(0 if t is None else t.data_ptr() for t in (*of_results.values(), *results.values()))
        )
        threads = torch.get_num_threads()
        native.load()[0].wsrl_mix_gradient(ctypes.addressof(mix), ctypes.addressof(gradient), threads)
        # Add up what the chunks brought, and all networks where they share one matrix.
        weight = _of_chunks(results["weight"], chunks)  # (B, C, E)
        results["weight"] = weight.sum(0, keepdim=True) if len(inputs[1]) == 1 else weight
        results["by_qf"] = None if results["by_qf"] is None else _of_chunks(results["by_qf"], chunks)
        return *results.values(), None


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _of_chunks(parts: Tensor, chunks: int) -> Tensor:
    """Sum ``(B, ...)`` of the parts ``(B, chunks, ...)`` that chunks of P brought."""
    return parts.sum(1) if chunks > 1 else parts.flatten(0, 1)
