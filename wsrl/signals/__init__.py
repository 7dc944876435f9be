"""What is fitted: signals, and the sources that yield them in a stable order."""

from wsrl.errors import SignalError
from wsrl.signals.named_sources import open_source, source_names
from wsrl.signals.signal import Signal

__all__ = ["Signal", "SignalError", "open_source", "source_names"]
