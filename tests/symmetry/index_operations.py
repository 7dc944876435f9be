"""Operations that mix tokens ``(2, 4, 6)`` and leave the six channels alone, by what they are."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SOURCE, TARGET = torch.tensor([0, 1, 2, 3, 0, 2]), torch.tensor([1, 2, 3, 0, 2, 1])
POSITIONS = torch.tensor([1, 3, 0])
ROWS = torch.tensor([True, False, True, True])
MASK = torch.tensor([[True, False, True, False], [False, True, False, False]])
WHOLE = MASK[..., None].expand(2, 4, 6)


def edges(h: Tensor) -> Tensor:
    """A sparse matrix ``(4, 4)`` in the precision of ``h``."""
    return torch.sparse_coo_tensor(torch.stack([TARGET, SOURCE]), torch.arange(1, 7).to(h.dtype), (4, 4))


def spread(indices: Tensor) -> Tensor:
    """Places along tokens for every item and channel."""
    return indices[:, None].expand(2, len(indices), 6)


def written(h: Tensor, indices, values: Tensor) -> Tensor:
    out = torch.zeros_like(h)
    out[indices] = values
    return out


def rotated_as_complex(h: Tensor) -> Tensor:
    """Pairs of tokens turned as Meta's LLaMA turns pairs of channels."""
    pairs = torch.view_as_complex(h.mT.reshape(2, 6, 2, 2).contiguous())
    turns = torch.polar(torch.ones(2, dtype=h.dtype), torch.arange(2).to(h.dtype))
    return torch.view_as_real(pairs * turns).flatten(2).mT


def several_edge_sets(h: Tensor) -> Tensor:
    """Messages along two sets of edges, summed and averaged, as PyG's layers do."""
    first = torch.zeros_like(h[0]).index_add_(0, TARGET, h[0, SOURCE])
    second = torch.zeros_like(h[0]).scatter_add_(0, SOURCE[:, None].expand(-1, 6), h[0].index_select(0, TARGET))
    return first + second / torch.bincount(SOURCE, minlength=4).clamp(min=1)[:, None]


def routed(h: Tensor) -> Tensor:
    """Tokens given to experts of which one gets none, as Mixtral does it."""
    flat, out = h.flatten(0, 1), torch.zeros_like(h.flatten(0, 1))
    for expert in range(3):
        rows = torch.nonzero(torch.tensor([0, 0, 2, 0, 2, 0, 0, 2]) == expert)[:, 0]
        out.index_add_(0, rows, torch.tanh(flat[rows]) * (expert + 1))
    return out.view_as(h)


def windowed(h: Tensor) -> Tensor:
    images = h.mT.reshape(2, 6, 2, 2)
    return F.fold(F.unfold(images, 2, padding=1), (2, 2), 2, padding=1).flatten(2).mT


Operation = Callable[[Tensor], Tensor]

INDICES: dict[str, Operation] = {
    "index_select": lambda h: h.index_select(1, SOURCE),
    "index_add": lambda h: torch.zeros_like(h).index_add(1, TARGET, h[:, SOURCE]),
    "index_add_": lambda h: torch.zeros_like(h).index_add_(1, TARGET, h[:, SOURCE]),
    "index_copy": lambda h: torch.zeros_like(h).index_copy(1, POSITIONS, h[:, :3]),
    "index_fill": lambda h: h.index_fill(1, POSITIONS[:2], 0.5),
    "index_reduce": lambda h: torch.zeros_like(h).index_reduce(1, TARGET[:4], h, "amax"),
    "index_put": lambda h: h.index_put((torch.tensor([0, 1]), POSITIONS[:2]), h[:, 0], accumulate=True),
    "written to places": lambda h: written(h, (slice(None), POSITIONS), h[:, :3]),
    "embedding": lambda h: F.embedding(SOURCE, h[0]),
    "embedding_bag": lambda h: F.embedding_bag(SOURCE.view(2, 3), h[0]),
    "messages": several_edge_sets,
    "experts": routed,
}
GATHERED: dict[str, Operation] = {
    "gather": lambda h: h.gather(1, spread(SOURCE)),
    "gather of fewer items": lambda h: h.gather(1, spread(SOURCE)[:1]),
    "take_along_dim": lambda h: h.take_along_dim(SOURCE[None, :, None], 1),
    "gather by argsort": lambda h: h.gather(1, h.argsort(1)),
    "gather of the best tokens": lambda h: h.gather(1, h.norm(dim=-1).topk(2, 1).indices[..., None].expand(-1, -1, 6)),
    "scatter": lambda h: torch.zeros_like(h).scatter(1, spread(TARGET[:4]), h),
    "scatter of a number": lambda h: h.scatter(1, spread(POSITIONS), 2.0),
    "scatter times": lambda h: h.scatter(1, spread(POSITIONS), h, reduce="multiply"),
    "scatter_add": lambda h: torch.zeros(2, 5, 6, dtype=h.dtype).scatter_add(1, spread(TARGET[:4]), h),
    "scatter_add_": lambda h: torch.zeros(2, 5, 6, dtype=h.dtype).scatter_add_(1, spread(TARGET[:4]), h),
    "scatter_reduce sum": lambda h: torch.zeros_like(h).scatter_reduce(1, spread(TARGET[:4]), h, "sum"),
    "scatter_reduce mean": lambda h: torch.zeros_like(h).scatter_reduce(1, spread(TARGET[:4]), h, "mean"),
    "scatter_reduce amax": lambda h: h.roll(1, 1).scatter_reduce(1, spread(TARGET[:4]), h, "amax", include_self=False),
}
MASKED: dict[str, Operation] = {
    "mask of one axis": lambda h: h[:, ROWS],
    "mask of two axes": lambda h: h[MASK],
    "mask of three axes": lambda h: h[WHOLE].view(-1, 6),
    "mask and slice": lambda h: h[MASK[:, 0], 1:3],
    "mask and places": lambda h: h[MASK[:, 1], [0]],
    "mask as uint8": lambda h: h[:, ROWS.to(torch.uint8)],
    "where without values": lambda h: h[torch.where(MASK)],
    "written to a mask": lambda h: written(h, MASK, 2 * h[MASK]),
    "a number to a mask": lambda h: written(h, MASK, torch.tensor(1.0).to(h.dtype)) + h,
    "masked_select": lambda h: h.masked_select(ROWS[:, None]).view(2, 3, 6),
    "masked_scatter": lambda h: h.masked_scatter(WHOLE, h.flip(1)),
    "masked_fill": lambda h: h.masked_fill(MASK[..., None], 0),
    "where": lambda h: torch.where(MASK[..., None], h, h.flip(1)),
    "attention with a mask": lambda h: F.scaled_dot_product_attention(h, h, h, attn_mask=ROWS.expand(4, 4)),
}
SPARSE: dict[str, Operation] = {
    "sparse.mm": lambda h: torch.sparse.mm(edges(h), h[0]),
    "coo @ dense": lambda h: edges(h).coalesce() @ h[0],
    "coo turned": lambda h: edges(h).t() @ h[0],
    "csr @ dense": lambda h: edges(h).to_sparse_csr() @ h[0],
    "dense @ coo": lambda h: (h[0].t() @ edges(h)).t(),
    "sparse.addmm": lambda h: torch.sparse.addmm(h[0], edges(h), h[0]),
    "sparse sum": lambda h: h[0] * torch.sparse.sum(edges(h), 1).to_dense()[:, None],
    "sparse of channels": lambda h: torch.sparse_coo_tensor(TARGET[None], h[0, SOURCE], (4, 6)).to_dense(),
    "sparse of scores": lambda h: (
        torch.sparse_coo_tensor(torch.stack([TARGET, SOURCE]), (h[0, SOURCE] * h[0, TARGET]).sum(-1), (4, 4)) @ h[0]
    ),
}
SPECTRA: dict[str, Operation] = {
    "fft": lambda h: torch.fft.fft(h, dim=1).real,
    "rfft and irfft": lambda h: torch.fft.irfft(torch.fft.rfft(h, dim=1) * torch.arange(1, 4)[:, None], n=4, dim=1),
    "fft2": lambda h: torch.fft.ifft2(torch.fft.fft2(h, dim=(0, 1)).roll(1, 1), dim=(0, 1)).imag,
    "hfft": lambda h: torch.fft.hfft(h, dim=1),
    "fftshift": lambda h: torch.fft.fftshift(h, dim=1),
    "conjugate": lambda h: torch.fft.fft(h, dim=1).conj().resolve_conj().imag,
    "view_as_complex": rotated_as_complex,
    "complex": lambda h: torch.complex(h, h.flip(1)).angle(),
    "polar": lambda h: torch.polar(h.abs(), h).imag,
}
ORDERED: dict[str, Operation] = {
    "quantile": lambda h: h.quantile(0.3, 1),
    "several quantiles": lambda h: h.quantile(torch.tensor([0.2, 0.7], dtype=h.dtype), 1),
    "median": lambda h: h.median(1).values,
    "kthvalue": lambda h: h.kthvalue(2, 1).values,
    "sort": lambda h: h.sort(1, descending=True).values,
    "topk": lambda h: h.topk(2, 1).values,
    "cumsum": lambda h: h.cumsum(1),
    "cummax": lambda h: h.cummax(1).values,
    "roll": lambda h: h.roll((1, 2), (-2, 0)),
    "flip": lambda h: h.flip(-2),
    "rot90": lambda h: h.rot90(1, (0, 1)),
    "unfold": lambda h: h.unfold(1, 2, 1)[..., 1],
    "unfold and fold": windowed,
    "segment_reduce": lambda h: torch.segment_reduce(h[0], "mean", lengths=torch.tensor([1, 3])),
    "bincount of weights": lambda h: torch.bincount(TARGET[:4], h[0].sum(-1), 4)[:, None] * h[0],
    "slice_scatter": lambda h: h.slice_scatter(h[:, :2], 1, 0, 4, 2),
    "select_scatter": lambda h: h.select_scatter(h[:, 0], 1, 2),
    "diagonal of tokens": lambda h: torch.diagonal(h @ h.mT, dim1=1, dim2=2)[..., None] * h,
    "diagonal of channels": lambda h: torch.diagonal(h.mT @ h, dim1=1, dim2=2)[:, None],
    "diag_embed": lambda h: (torch.diag_embed(h[:, 0]) @ h.mT).mT,
    "max_unpool": lambda h: F.max_unpool1d(*F.max_pool1d(h.mT, 2, return_indices=True), 2).mT,
    "inverse": lambda h: torch.linalg.inv(h @ h.mT + torch.eye(4, dtype=h.dtype)) @ h,
    "solve": lambda h: torch.linalg.solve(torch.ones(4, 4).tril().to(h.dtype), h),
}
REFUSED: dict[str, Operation] = {
    "take": lambda h: h.take(torch.arange(48).view(2, 4, 6)),
    "put": lambda h: h.clone().put_(torch.tensor([0]), torch.ones(1, dtype=h.dtype)),
    "as_strided": lambda h: h.contiguous().as_strided((2, 3, 2, 6), (24, 6, 6, 1)).sum(2),
    "_linalg_svd": lambda h: torch.linalg.svdvals(h)[..., None] * h,
    "_pdist_forward": lambda h: h[0] * F.pdist(h[0]).sum(),
}
"""By the name that the message must hold."""
FOLLOWED = INDICES | GATHERED | MASKED | SPARSE | SPECTRA | ORDERED
