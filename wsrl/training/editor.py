"""Training a network over weights to edit fields, by the pictures of the edited fields.

Letters: N fields, B fields of a batch, P points, D coordinates, C channels, W weights of a field.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from wsrl.encoders.editors import WeightEditor
from wsrl.fields.representation import Representation
from wsrl.options import SHARE, at_least, check, option
from wsrl.progress import ShowProgress, silent
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.optimisation import scheduled
from wsrl.training.step_progress import TrainingProgress

RENDERED_AT_ONCE = 128


@dataclass(frozen=True, kw_only=True)
class EditTrainingConfig:
    """How an editor is trained.

    Attributes:
        epochs: Passes over the training fields.
        batch_size: Fields in a batch.
        num_points: Points at which a step compares the edited fields with their targets; None for all.
        learning_rate: Peak step size of AdamW.
        weight_decay: Decoupled weight decay of AdamW.
        warmup: Share of the steps over which the step size rises; it then falls along a cosine.
        clip: Largest norm of the gradient.
        seed: Seed of the batches and the points.
    """

    epochs: int = option(30, at_least(1))
    batch_size: int = option(64, at_least(1))
    num_points: int | None = option(256, at_least(1))
    learning_rate: float = 3e-3
    weight_decay: float = 1e-2
    warmup: float = option(0.1, SHARE)
    clip: float = 1.0
    seed: int = 0

    def __post_init__(self):
        check(self)


@dataclass(frozen=True)
class EditExamples:
    """Fields, and what they should become.

    Attributes:
        weights: Tensors ``(N, *shape)`` by name.
        coords: Points ``(P, D)``.
        targets: Values ``(N, P, C)`` that the edited fields should take there.
    """

    weights: dict[str, Tensor]
    coords: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def subset(self, index: Tensor | slice) -> "EditExamples":
        """Some of the fields."""
        weights = {name: tensor[index] for name, tensor in self.weights.items()}
        return EditExamples(weights, self.coords, self.targets[index])

    def to(self, device: torch.device | str) -> "EditExamples":
        """The examples with all tensors on ``device``."""
        weights = {name: tensor.to(device) for name, tensor in self.weights.items()}
        return EditExamples(weights, self.coords.to(device), self.targets.to(device))


def dilate(pictures: Tensor, grid: tuple[int, int], size: int = 3) -> Tensor:
    """Grey dilation: every pixel takes the largest value of the square around it.

    Args:
        pictures: Values ``(N, P, C)`` on a grid, row by row.
        grid: Height and width in pixels.
        size: Side of the square in pixels, odd.

    Returns:
        Values ``(N, P, C)``.
    """
    planes = pictures.mT.unflatten(-1, grid)  # (N, C, H, W)
    return max_pool2d(planes, size, stride=1, padding=size // 2).flatten(2).mT


class EditorTask(L.LightningModule):
    """Mean squared error of what edited fields show, under AdamW with a warm-up and a cosine decay.

    Args:
        editor: The network to train.
        representation: How weights become values.
        config: How it is trained.
    """

    def __init__(self, editor: WeightEditor, representation: Representation, config: EditTrainingConfig):
        super().__init__()
        self.editor, self.representation, self.config = editor, representation, config
        self.generator = torch.Generator().manual_seed(config.seed)

    def training_step(self, batch: EditExamples) -> Tensor:
        """Loss of one batch at some of its points."""
        coords, targets = batch.coords, batch.targets
        if self.config.num_points is not None and self.config.num_points < len(coords):
            points = torch.randperm(len(coords), generator=self.generator)[: self.config.num_points]
            coords, targets = coords[points], targets[:, points]
        loss = (self.representation.evaluate(self.editor(batch.weights), coords) - targets).square().mean()
        self.log("train_loss", loss, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch))
        return loss

    def configure_optimizers(self) -> dict:
        """AdamW, stepped along a cosine after a warm-up."""
        rate, total = self.config.learning_rate, int(self.trainer.estimated_stepping_batches)
        optimizer = torch.optim.AdamW(self.editor.parameters(), lr=rate, weight_decay=self.config.weight_decay)
        return scheduled(optimizer, self.config.warmup * total, total)


class ShuffledExamples:
    """Batches of examples in a new order in every pass; a last batch that is not full is left out.

    Args:
        examples: All of them, in memory.
        batch_size: Fields in a batch; all of them where there are fewer.
        seed: Seed of the order.
    """

    def __init__(self, examples: EditExamples, batch_size: int, seed: int):
        self.examples, self.size = examples, min(batch_size, len(examples))
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.examples) // self.size

    def __iter__(self) -> Iterator[EditExamples]:
        order = torch.randperm(len(self.examples), generator=self.generator)
        for index in order[: len(self) * self.size].split(self.size):
            yield self.examples.subset(index)


def train_editor(
    editor: WeightEditor,
    representation: Representation,
    examples: EditExamples,
    config: EditTrainingConfig,
    root: Path | str | None = None,
    progress: ShowProgress = silent,
) -> WeightEditor:
    """Train an editor, in place.

    Args:
        editor: A new editor.
        representation: How weights become values.
        examples: Training fields and what they should become.
        config: How to train.
        root: Folder that Lightning may write to.
        progress: Shows the steps.

    Returns:
        The same editor, in evaluation mode.
    """
    task = EditorTask(editor.train(), representation, config)
    # Without Lightning's own logs and checkpoints: the editor itself is what is left.
    with quiet_lightning():
        trainer = L.Trainer(
            max_epochs=config.epochs,
            accelerator="cpu",
            devices=1,
            gradient_clip_val=config.clip,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            callbacks=[TrainingProgress(progress, "editor")],
            default_root_dir=root,
        )
        trainer.fit(task, ShuffledExamples(examples, config.batch_size, config.seed + 1))
    return editor.eval()


@torch.no_grad()
def rendered(representation: Representation, examples: EditExamples, editor: WeightEditor | None = None) -> Tensor:
    """Values ``(N, P, C)`` of fields at the points of their targets.

    Args:
        representation: How weights become values.
        examples: The fields.
        editor: What edits them first; None leaves them as they are.
    """
    parts = []
    for start in range(0, len(examples), RENDERED_AT_ONCE):
        weights = examples.subset(slice(start, start + RENDERED_AT_ONCE)).weights
        parts.append(representation.evaluate(weights if editor is None else editor(weights), examples.coords))
    return torch.cat(parts)
