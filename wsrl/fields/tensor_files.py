"""Read the weights of one field from a file of another program; a file is never trusted.

A pickle is only read as tensors and plain containers: one that wants anything else is refused before it runs.
"""

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsrl.errors import SignalError
from wsrl.fields.layout import Layout

PICKLES = (".pt", ".pth", ".bin")
SUFFIXES = (*PICKLES[:2], ".safetensors")
# Names under which programs keep the state_dict in a file, the averaged weights first: they are what is published.
WRAPPERS = ("g_ema", "ema", "state_dict", "model_state_dict", "model", "params", "weights", "net", "network")
# What torch and safetensors raise where bytes are missing or others.
_DAMAGE = (
    SafetensorError,
    RuntimeError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
    OSError,
    struct.error,
    zipfile.BadZipFile,
)
_ROUNDED = "numbers that float32 cannot hold"


def read_tensors(path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """The tensors of one file by their names in it, on the CPU.

    Args:
        path: A ``.pt``, ``.pth`` or ``.bin`` file of torch, or a ``.safetensors`` file.
        inside: Key of the state_dict in the file, dots between keys; None finds it.

    Raises:
        SignalError: The file holds code, no tensors, or cannot be read; the message names it.
    """
    try:
        content = load_file(path) if path.suffix.lower() == ".safetensors" else _load_pickle(path)
    except SignalError:
        raise
    except _DAMAGE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        what = "cannot be read" if isinstance(error, OSError) else "is truncated or damaged"
        raise _bad(path, f"{what} ({reason})", "a file as torch.save or safetensors wrote it") from error
    return unwrap(content, path, inside)


def _load_pickle(path: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of protocols that it then refuses
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, AttributeError, IndexError) as error:
            match = re.search(r"(?:GLOBAL|instruction|function) ([\w.]+)", str(error))
            allowed = "tensors and plain containers, as torch.save(model.state_dict(), path) writes them"
            if match is None or "GLOBAL" not in str(error):
                raise _bad(path, "is no pickle of tensors alone, or is damaged", allowed) from error
            raise _bad(path, f"holds code: it wants {match[1]}, which was not run", allowed) from error


def _bad(path: Path, what: str, allowed: str) -> SignalError:
    return SignalError(f"{path.name} {what}", allowed=allowed, do="save the tensors again, or leave the file out")


def unwrap(content: object, path: Path, inside: str | None = None) -> dict[str, Tensor]:
    """The state_dict in what a file holds: the content itself, or what stands under one of the usual names.

    Raises:
        SignalError: There is none, or several and nothing says which.
    """
    for key in inside.split(".") if inside else ():
        if not isinstance(content, Mapping) or key not in content:
            raise _bad(path, f"has no {inside!r}", f"a file with a state_dict under {inside!r}")
        content = content[key]
    while isinstance(content, Mapping) and not _is_state_dict(content):
        nested = [key for key, value in content.items() if isinstance(value, Mapping) and value]
        known = [key for key in WRAPPERS if key in nested] or nested
        if not known or (len(nested) > 1 and known is nested):
            break
        content = content[known[0]]
    if not isinstance(content, Mapping) or not _is_state_dict(content):
        names = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise _bad(path, f"holds no state_dict but {names[:200] or 'nothing'}", "tensors by name")
    return {name: tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}


def _is_state_dict(content: Mapping) -> bool:
    return any(isinstance(value, Tensor) for value in content.values()) and all(isinstance(key, str) for key in content)


@dataclass(frozen=True, kw_only=True)
class FileReader:
    """Reads the fields of one network from files of one form.

    Attributes:
        layout: The tensors that every field has.
        names: Name in a file of each tensor of the layout.
        inside: Key of the state_dict in the files, or None.
        ignore: Names in the files that are no weights.
        rounding: Accept numbers that float32 cannot hold, and round them.
    """

    layout: Layout
    names: Mapping[str, str]
    inside: str | None = None
    ignore: tuple[str, ...] = ()
    rounding: bool = False

    def read(self, path: Path) -> dict[str, Tensor]:
        """Weights of the field in a file, float32.

        Raises:
            SignalError: The file cannot be read or does not fit; the message says why.
        """
        tensors = match_names(read_tensors(path, self.inside), self.names, self.ignore, path.name)
        return as_weights(tensors, self.layout, path.name, self.rounding)


def match_names(
    tensors: Mapping[str, Tensor], names: Mapping[str, str], ignore: Sequence[str], file: str
) -> dict[str, Tensor]:
    """Tensors of one file by our names.

    Args:
        tensors: What is in the file.
        names: Name in the file of each of ours.
        ignore: Names in the file that are passed over.
        file: Name of the file, for the message.

    Raises:
        SignalError: The file lacks a tensor, or has one that nothing stands for; both sides are listed.
    """
    expected = set(names.values())
    missing, extra = sorted(expected - set(tensors)), sorted(set(tensors) - expected - set(ignore))
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(extra)} too"] if extra else []
        raise SignalError(
            f"{file} {' and '.join(parts)}",
            allowed=f"the tensors {', '.join(names.values())}",
            do="leave the file out, or list what is no weight under `ignore:` in the description of the network",
        )
    return {ours: tensors[theirs] for ours, theirs in names.items()}


def as_weights(tensors: Mapping[str, Tensor], layout: Layout, file: str, rounding: bool = False) -> dict[str, Tensor]:
    """Tensors by our names as the weights of a field.

    Args:
        tensors: One tensor per entry of the layout.
        layout: Shapes.
        file: Name of the file, for messages.
        rounding: Round numbers that float32 cannot hold.

    Raises:
        SignalError: A shape is another one, or a number is not finite or not exact in float32.
    """
    weights = {}
    for spec in layout:
        # shape and kind of numbers
        tensor = tensors[spec.name].detach()
        if tuple(tensor.shape) != spec.shape:
            raise SignalError(
                f"{file}: {spec.name} has the shape {_sizes(tensor.shape)}",
                allowed=f"{_sizes(spec.shape)}, as the network is described",
                do="mend the description of the network, or leave the file out",
            )
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise SignalError(f"{file}: {spec.name} is {tensor.dtype}", allowed="plain real tensors", do="convert it")
        # the same numbers in float32
        exact = tensor.to(torch.float32)
        if not torch.isfinite(exact).all():
            raise SignalError(f"{file}: {spec.name} holds NaN or infinity", allowed="finite numbers", do="fit it again")
        if not rounding and not torch.equal(exact.to(tensor.dtype), tensor):
            raise SignalError(f"{file}: {spec.name} holds {_ROUNDED}", allowed="float32", do="pass --rounding true")
        weights[spec.name] = exact.contiguous().clone()
    return weights


def _sizes(shape) -> str:
    return "x".join(map(str, shape)) or "a single number"
