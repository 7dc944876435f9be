"""The progress of a training through the library's callback: all steps in one, also where nobody knows how many."""

from contextlib import contextmanager

import lightning as L
import torch
from torch.utils.data import DataLoader, IterableDataset

from wsrl.progress import Progress
from wsrl.training.lightning_noise import quiet_lightning
from wsrl.training.step_progress import TrainingProgress


class Numbers(IterableDataset):
    """Numbers whose count nobody knows."""

    def __iter__(self):
        return iter(torch.ones(7, 1))


class Task(L.LightningModule):
    """One weight that moves towards one."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        return (self.weight - batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Counted(Progress):
    """Counts what it is told."""

    def __init__(self, total):
        self.total, self.done = total, 0

    def expect(self, number):
        self.total += number

    def advance(self, number, note=""):
        self.done += number


def trained(data, **options):
    seen = []

    @contextmanager
    def show(what, total):
        seen.append(Counted(total))
        yield seen[-1]

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    with quiet_lightning():
        trainer = L.Trainer(accelerator="cpu", callbacks=[TrainingProgress(show, "task")], **quiet, **options)
        trainer.fit(Task(), DataLoader(data))
    return seen[0].total, seen[0].done


def test_all_epochs_are_one_loop():
    assert trained(torch.ones(5, 1), max_epochs=3) == (15, 15)


def test_data_of_unknown_length_are_counted():
    assert trained(Numbers(), max_epochs=2) == (None, 14)
    assert trained(Numbers(), max_steps=4, max_epochs=-1) == (4, 4)
