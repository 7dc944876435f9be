"""Networks on the disk: a folder with ``config.json`` and ``model.safetensors``, whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from wsrl.durable import disk_errors, whole, write_bytes
from wsrl.errors import UserError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def write_model(directory: Path | str, config: dict, module: nn.Module) -> None:
    """Write a module and what rebuilds it; the configuration, by which a folder counts as a model, comes last.

    Args:
        directory: Folder of the model; made where it is missing.
        config: Plain values.
        module: Its parameters and persistent buffers are kept.
    """
    directory = Path(directory)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    with whole(directory / WEIGHTS_FILE) as temporary:
        save_file(tensors, temporary)
    write_bytes(directory / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())


TRAINED = "give the folder `model` of a finished run of wsrl train"


def read_model(directory: Path | str, build: Callable[[dict], nn.Module], what: str, do: str = TRAINED):
    """Rebuild what :func:`write_model` wrote, in evaluation mode on the CPU.

    Args:
        directory: Folder of the model.
        build: Makes the module from the configuration; a wrong ``model`` entry is a ``KeyError`` or ``ValueError``.
        what: What the folder should hold, for messages.
        do: How to come by such a folder, for messages.

    Returns:
        The module.

    Raises:
        UserError: The folder does not hold such a model, or it is damaged.
    """
    directory = Path(directory)
    try:
        config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
        module = build(config)
        module.load_state_dict(load_file(directory / WEIGHTS_FILE))
    except (OSError, KeyError, TypeError, ValueError, AttributeError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        allowed = f"a folder with {CONFIG_FILE} and {WEIGHTS_FILE} of {what}"
        raise UserError(f"{directory} does not hold {what}: {reason}", allowed=allowed, do=do) from error
    return module.eval()
