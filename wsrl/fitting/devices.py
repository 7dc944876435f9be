"""The one place that knows which devices this machine has, and what a fit may use of them."""

import torch

from wsrl.errors import UserError
from wsrl.options import at_least, check_values


def choose_device(name: str) -> torch.device:
    """The torch device for ``auto``, ``cpu`` or ``cuda[:i]``.

    Args:
        name: What the user asked for; ``auto`` is the first GPU where one is visible.

    Raises:
        UserError: The machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    allowed = "auto, cpu, or cuda[:i] where a GPU is visible"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device is {name!r}", allowed=allowed, do="choose --device auto") from error
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    if device.type not in ("cpu", "cuda") or (device.index or 0) >= available:
        raise UserError(f"this machine has no device {name!r}", allowed=allowed, do="choose --device cpu")
    return device


def worker_devices(name: str, workers: int | None) -> list[str]:
    """The device of each worker process of a build.

    Args:
        name: ``auto``, ``cpu`` or ``cuda[:i]``.
        workers: How many processes; None is one per visible GPU for ``auto``, else one.

    Returns:
        One name per worker; ``auto`` deals out all visible GPUs in turn.

    Raises:
        UserError: The machine has no such device, or no worker is asked for.
    """
    check_values({"--workers": workers}, **{"--workers": at_least(1)})
    gpus = torch.cuda.device_count() if name == "auto" else 0
    if gpus:
        return [f"cuda:{number % gpus}" for number in range(workers or gpus)]
    return [str(choose_device(name))] * (workers or 1)


def worker_threads(threads: int | None, workers: int) -> int:
    """Torch threads of each worker process, so that together they use the cores of this process once.

    Args:
        threads: What the user asked for, or None.
        workers: How many processes.

    Raises:
        UserError: No thread is asked for.
    """
    check_values({"--threads": threads}, **{"--threads": at_least(1)})
    return threads or max(1, torch.get_num_threads() // workers)
