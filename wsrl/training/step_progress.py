"""Lightning's progress through the callback that all long work of the library uses."""

import time
from contextlib import ExitStack

import lightning as L

from wsrl.progress import Progress, ShowProgress

NOTE_EVERY_S = 0.5
NUM_METRICS = 3


class TrainingProgress(L.Callback):
    """Shows the steps of a whole training, all epochs in one, with the latest epoch and metrics beside it.

    A task with a ``summary`` has that line said when it begins.

    Args:
        progress: How to show it.
        what: What is trained.
    """

    def __init__(self, progress: ShowProgress, what: str):
        self.progress, self.what = progress, what
        self._stack = ExitStack()
        self._shown, self._noted = Progress(), 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin at the step that a resumed training goes on from."""
        if not trainer.is_global_zero:
            return
        total = num_steps(trainer)
        before = trainer.current_epoch * trainer.num_training_batches if trainer.current_epoch else 0
        done = int(before) if total is not None and before < total else 0  # batches of an epoch may be infinite
        self._shown = self._stack.enter_context(self.progress(f"{self.what}: steps", total))
        if text := getattr(pl_module, "summary", ""):
            self._shown.say(text)
        if done:
            self._shown.expect(-done)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_) -> None:
        """Count a step; the note is made anew twice a second."""
        now = time.monotonic()
        fresh = now - self._noted >= NOTE_EVERY_S
        self._noted = now if fresh else self._noted
        self._shown.advance(1, note(trainer) if fresh else "")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """End the display."""
        self._stack.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """End the display."""
        self._stack.close()


def num_steps(trainer: L.Trainer) -> int | None:
    """Batches of all epochs; None where the training has no known end."""
    limits = [trainer.max_steps] if trainer.max_steps >= 0 else []
    if trainer.max_epochs is not None and trainer.max_epochs >= 0:
        limits.append(trainer.max_epochs * trainer.num_training_batches)
    least = min(limits, default=float("inf"))
    return None if least == float("inf") else int(least)


def note(trainer: L.Trainer) -> str:
    """The epoch, where there are several, and the metrics of the bar, or else the first ones that are logged."""
    metrics = trainer.progress_bar_metrics or {name: float(x) for name, x in trainer.callback_metrics.items()}
    metrics = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    texts = [f"{name} {value:.4g}" for name, value in list(metrics.items())[:NUM_METRICS]]
    if trainer.max_epochs != 1:
        texts.insert(0, f"epoch {trainer.current_epoch + 1}")
    return "  ".join(texts)
