"""All kinds of encoders by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsrl.encoders.deepsets import DeepSetsEncoder
from wsrl.encoders.encoder import EncoderConfig, WeightEncoder
from wsrl.encoders.mlp import MlpEncoder
from wsrl.encoders.normalisation import WeightStatistics
from wsrl.encoders.statnn import StatNNEncoder
from wsrl.encoders.transformer import TransformerEncoder
from wsrl.encoders.unf import UnfEncoder
from wsrl.errors import UserError
from wsrl.fields.gauge import RAW
from wsrl.fields.layout import Layout
from wsrl.fields.saving import read_model
from wsrl.options import from_plain

ENCODERS: dict[str, type[WeightEncoder]] = {
    encoder.kind: encoder for encoder in (MlpEncoder, DeepSetsEncoder, StatNNEncoder, TransformerEncoder, UnfEncoder)
}


def encoder_config(kind: str, options: Mapping[str, Any]) -> EncoderConfig:
    """The checked configuration of an encoder.

    Args:
        kind: A key of ``ENCODERS``.
        options: Plain values by name; options that are left out keep their defaults.

    Returns:
        The configuration of this kind.

    Raises:
        UserError: The kind or an option is unknown, or a value does not fit.
    """
    if kind not in ENCODERS:
        raise UserError(f"unknown encoder {kind!r}", allowed=", ".join(ENCODERS), do="choose one of these encoders")
    return from_plain(ENCODERS[kind].config_class, options, "options.")


def build_encoder(kind: str, options: Mapping[str, Any], statistics: WeightStatistics) -> WeightEncoder:
    """An encoder with new parameters, drawn from torch's random state.

    Args:
        kind: A key of ``ENCODERS``.
        options: Plain values by name.
        statistics: Per-entry statistics of the training fields; they carry the layout.

    Returns:
        The encoder.

    Raises:
        UserError: The kind or an option is unknown, or a value does not fit.
    """
    config = encoder_config(kind, options)
    return ENCODERS[kind](config, statistics)


def encoder_from_json(data: Mapping[str, Any]) -> WeightEncoder:
    """Rebuild an encoder from ``WeightEncoder.to_json``; its parameters and statistics are to be loaded.

    Raises:
        UserError: The kind or an option is unknown.
    """
    gauge = data.get("gauge", RAW)  # earlier encoders do not say: there was no other
    return build_encoder(data["kind"], data["options"], WeightStatistics(Layout.from_json(data["layout"]), gauge))


def load_encoder(directory: Path | str) -> WeightEncoder:
    """An encoder of any kind that ``WeightEncoder.save_pretrained`` wrote, in evaluation mode on the CPU.

    Raises:
        UserError: The folder does not hold an encoder, or it is damaged.
    """
    return read_model(directory, encoder_from_json, "an encoder of weights")
