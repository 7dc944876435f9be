"""Weight-space data sets of neural fields: fit, store, read, generate."""

__all__ = ["WeightStore"]
__version__ = "0.1.0"


def __getattr__(name: str):
    if name == "WeightStore":
        from wsrl.store import WeightStore

        return WeightStore
    raise AttributeError(f"module 'wsrl' has no attribute {name!r}")
