"""Safetensors files of networks, and messages for files that are none."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from wsrl.errors import UserError


def tensor_names(path: str | Path) -> list[str]:
    """Names of the tensors of a file.

    Raises:
        UserError: The file is missing or no safetensors file.
    """
    return _read(path, _names)


def read_network(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU.

    Raises:
        UserError: The file is missing, no safetensors file, or holds nothing.
    """
    tensors = _read(path, lambda file: load_file(file, device="cpu"))
    if not tensors:
        raise UserError(f"{path} holds no tensors", allowed="the weights of a network", do="choose another file")
    return tensors


def _names(file: str) -> list[str]:
    with safe_open(file, framework="pt") as content:
        return list(content.keys())


def _read(path: str | Path, read):
    allowed = "a file that safetensors.torch.save_file wrote"
    if not Path(path).is_file():
        what = "is a folder" if Path(path).is_dir() else "does not exist"
        raise UserError(f"{path} {what}", allowed=allowed, do="check the path")
    try:
        return read(str(path))
    except (SafetensorError, UnicodeDecodeError, ValueError) as error:
        raise UserError(
            f"{path} is no safetensors file, or is damaged ({str(error).splitlines()[0]})",
            allowed=allowed,
            do="save the state dict again: safetensors.torch.save_file(module.state_dict(), path)",
        ) from error
