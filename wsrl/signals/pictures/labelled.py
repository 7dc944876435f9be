"""Labelled pictures as tensors, for networks that classify pictures.

Letters: N pictures, C channels, H height, W width.
"""

import torch
from torch import Tensor

from wsrl.errors import UserError
from wsrl.signals.source import Source


def labelled_pictures(source: Source, limit: int | None = None) -> dict[str, tuple[Tensor, Tensor]]:
    """Pictures ``(N, C, H, W)`` and class numbers ``(N,)`` of each split; of a source without splits all are ``train``.

    Args:
        source: A source of pictures with labels; class numbers are those of its ``class_names``.
        limit: Most pictures of each split, the first ones; None for all.

    Raises:
        UserError: The source has no labels, or holds no pictures.
    """
    if source.form.grid is None or not source.label_names:
        lacks = "labels" if source.form.grid is not None else "pictures"
        raise UserError(
            f"{source.name} has no {lacks}", allowed="a source of pictures with labels", do="choose another --data"
        )
    rows: dict[str, list[int]] = {}
    for row, split in enumerate(source.splits()):
        rows.setdefault(split or "train", []).append(row)
    numbers = {name: number for number, name in enumerate(source.class_names)}
    examples = {}
    for split, in_split in rows.items():
        signals = [source[row] for row in in_split[:limit]]
        values = torch.stack([signal.values for signal in signals])  # (N, H W, C)
        pictures = values.transpose(1, 2).reshape(len(values), -1, *source.form.grid)  # (N, C, H, W)
        examples[split] = (pictures.float(), torch.tensor([numbers[signal.label] for signal in signals]))
    return examples if "train" in examples else {"train": next(iter(examples.values())), **examples}
