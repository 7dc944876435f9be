"""A small convolutional classifier of pictures, whose last features tell sets of pictures apart.

Letters: N pictures, C channels, H height, W width, F features, K classes.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from wsrl.errors import UserError
from wsrl.progress import ShowProgress, silent

AT_ONCE = 512
SMALLEST_TO_TRAIN = 8


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions:
    """Size and training of the classifier.

    Attributes:
        width: Channels of the first convolution; the second and the third have twice and four times as many, and the
            third's are the features.
        largest_side: Larger pictures are shrunk to this longer side by averaging, in pixels.
        num_epochs: Passes over the pictures, at least.
        num_steps: Steps, at least: few pictures are seen more often.
        batch_size: Pictures of a step, at most; an eighth of them where they are few.
        learning_rate: Peak of the one-cycle schedule of AdamW.
        weight_decay: Decay of AdamW.
        shift: Largest shift of a picture, as a share of its side.
        seed: Seed of the start, the order and the shifts.
    """

    width: int = 24
    largest_side: int = 64
    num_epochs: int = 8
    num_steps: int = 600
    batch_size: int = 256
    learning_rate: float = 1e-2
    weight_decay: float = 5e-2
    shift: float = 0.05
    seed: int = 0

    def batch_of(self, num: int) -> int:
        """Pictures of a step where there are ``num``."""
        return min(self.batch_size, max(2, num // 8))

    def epochs_of(self, num: int) -> int:
        """Passes over ``num`` pictures."""
        return max(self.num_epochs, -(-self.num_steps // max(1, num // self.batch_of(num))))


class PictureClassifier(nn.Module):
    """Three convolutions, each followed by pooling and batch normalisation; their mean over the picture; a linear map.

    Args:
        channels: Channels of a picture.
        num_classes: Number of classes.
        width: Channels of the first convolution.
        largest_side: Larger pictures are shrunk to this longer side.
    """

    def __init__(self, *, channels: int, num_classes: int, width: int, largest_side: int):
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.largest_side = largest_side
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1, bias=False) for before, after in pairwise(widths)
        )
        self.normalisations = nn.ModuleList(nn.BatchNorm2d(after) for after in widths[1:])
        self.classes = nn.Linear(widths[-1], num_classes)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Feature maps ``(N, F', H', W')`` after each convolution, for pictures ``(N, C, H, W)`` in [0, 1]."""
        x = (shrunk(pictures, self.largest_side) - self.mean[:, None, None]) / self.deviation[:, None, None]
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for convolution, normalisation in zip(self.convolutions, self.normalisations):
            x = convolution(x)
            x = functional.max_pool2d(x, 2) if min(x.shape[-2:]) > 1 else x
            x = functional.relu(normalisation(x))
            maps.append(x)
        return maps

    def features(self, pictures: Tensor) -> Tensor:
        """Features ``(N, F)`` of pictures ``(N, C, H, W)`` in [0, 1]."""
        return self.stages(pictures)[-1].mean(dim=(2, 3))

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits ``(N, K)`` of pictures ``(N, C, H, W)`` in [0, 1]."""
        return self.classes(self.features(pictures))


def shrunk(pictures: Tensor, largest_side: int) -> Tensor:
    """Pictures ``(N, C, H, W)`` whose longer side is at most so many pixels; smaller ones stay as they are."""
    longer = max(pictures.shape[-2:])
    if longer <= largest_side:
        return pictures
    sides = [max(1, round(side * largest_side / longer)) for side in pictures.shape[-2:]]
    return functional.interpolate(pictures, size=sides, mode="area")


def train_picture_classifier(
    pictures: Tensor,
    labels: Tensor,
    num_classes: int,
    options: ClassifierOptions,
    progress: ShowProgress = silent,
) -> PictureClassifier:
    """Train a classifier; the same pictures and options give the same one on the same machine.

    Args:
        pictures: Pictures ``(N, C, H, W)`` in [0, 1].
        labels: Class indices ``(N,)``.
        num_classes: Number of classes.
        options: Size and training.
        progress: Shows how many pictures were seen.

    Returns:
        The classifier, in evaluation mode.

    Raises:
        UserError: There are too few pictures, or fewer than two classes.
    """
    if len(pictures) < SMALLEST_TO_TRAIN or len(labels.unique()) < 2:
        raise UserError(
            f"{len(pictures)} labelled training pictures of {len(labels.unique())} classes cannot train features",
            allowed=f"{SMALLEST_TO_TRAIN} or more pictures of two or more classes",
            do="give --features timm:NAME, a model that was trained elsewhere",
        )
    network, generator = _start(pictures, num_classes, options)
    # One cycle of the learning rate over all steps; small sets are seen more often.
    size, num_epochs = options.batch_of(len(pictures)), options.epochs_of(len(pictures))
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)
    num_steps = num_epochs * (len(pictures) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.learning_rate, total_steps=num_steps)
    with progress("pictures seen by the classifier", num_steps * size) as shown:
        for _ in range(num_epochs):
            # Whole batches only, each picture shifted at random.
            order = torch.randperm(len(pictures), generator=generator)
            for rows in order[: len(order) // size * size].split(size):
                batch = shifted(pictures[rows], options.shift, generator)
                loss = functional.cross_entropy(network(batch), labels[rows])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                shown.advance(size)
    return network.eval().requires_grad_(False)


def _start(pictures: Tensor, num_classes: int, options: ClassifierOptions):
    """The untrained classifier and the generator of the order and the shifts; torch's own state is not touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        sizes = {"width": options.width, "largest_side": options.largest_side}
        network = PictureClassifier(channels=pictures.shape[1], num_classes=num_classes, **sizes)
    network.mean.copy_(pictures.mean(dim=(0, 2, 3)))
    network.deviation.copy_(pictures.std(dim=(0, 2, 3)).clamp(min=1e-3))
    network = network.to(memory_format=torch.channels_last).train()
    return network, torch.Generator().manual_seed(options.seed)


def shifted(pictures: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Pictures ``(N, C, H, W)``, all moved by the same whole pixels with their edges repeated.

    Args:
        pictures: The pictures.
        share: Largest shift, as a share of the longer side, rounded to pixels but at least one.
        generator: Source of the shift.
    """
    most = max(1, round(share * max(pictures.shape[-2:])))
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator).tolist()
    height, width = pictures.shape[-2:]
    padded = functional.pad(pictures, (most,) * 4, mode="replicate")
    return padded[..., down : down + height, right : right + width]


@torch.no_grad()
def in_blocks(function: Callable[[Tensor], Tensor], pictures: Tensor) -> Tensor:
    """What a function makes of pictures, a block at a time."""
    return torch.cat([function(block) for block in pictures.split(AT_ONCE)])


def training_sha256(pictures: Tensor, labels: Tensor, options: ClassifierOptions) -> str:
    """Hash of all that determines a classifier: pictures to 8 bits, classes and options."""
    total = hashlib.sha256(json.dumps([asdict(options), list(pictures.shape)], sort_keys=True).encode())
    for block in pictures.split(AT_ONCE):
        total.update(block.mul(255).round().to(torch.uint8).numpy().tobytes())
    total.update(labels.to(torch.int64).numpy().tobytes())
    return total.hexdigest()
