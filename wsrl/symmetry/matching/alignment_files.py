"""Files of networks, permutations and specs, and messages for files that are none."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from wsrl.durable import write_bytes
from wsrl.errors import UserError
from wsrl.symmetry.spec.permute import Weights
from wsrl.symmetry.spec.spec import PermutationSpec


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


def save_tensors(path: Path, tensors: Weights) -> None:
    """Write the tensors of a network or of a permutation as safetensors, whole or not at all."""
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    write_bytes(path, save(copies))


def read_spec(path: str | Path) -> PermutationSpec:
    """A permutation spec from the JSON of ``PermutationSpec.to_json``.

    Raises:
        UserError: The file is no such JSON.
    """
    allowed = 'JSON as PermutationSpec.to_json gives it: {"axes": {tensor: [...]}, "sizes": {permutation: number}, ...}'
    try:
        return PermutationSpec.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is no permutation spec ({error!r})", allowed=allowed, do="mend the file") from error


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
