"""Weight-space data sets of neural fields: fit, store, read, generate. The table of contents, each name by an example.

Pictures or shapes become signals (:func:`open_source`), one base field (:func:`train_base`), and one small field each
(:func:`build_store`, :class:`WeightStore`):

>>> from wsrl import FitConfig, RepresentationConfig, build_store, open_source, train_base
>>> source = open_source("pictures", size=8, mode="L")
>>> base = train_base(source, small_base, out="mine/base")  # without a configuration one that fits the data is chosen
>>> "base.train_psnr_mean" in base.metrics
True
>>> store = build_store(source, base=base, out="mine/fields")
>>> len(store), store.failures
(24, [])
>>> rank_one, short = RepresentationConfig(kind="lora", rank=1), FitConfig(steps=5, learning_rate=0.04)
>>> other = build_store(source, rank_one, short, base=base, out="mine/rank_one")

Read fields as weights, as functions, as pictures, and in batches:

>>> from wsrl import Representation, WeightStore
>>> store = WeightStore.open("mine/fields")
>>> weights = store[store.ids[0]]  # dict[str, Tensor]
>>> field = store.field(store.ids[0])  # coords (P, D) in [-1, 1] -> values (P, C)
>>> field.image(64).size
(64, 64)
>>> isinstance(store.representation, Representation), store.representation.config.kind
(True, 'mlora_asym')
>>> [len(batch.ids) for batch in store.batches(16)]
[16, 8]

Learn from the weights, load what was learned, and draw new fields:

>>> from wsrl import TrainOptions, WeightAutoencoder, WeightDiffusionPipeline, load, load_encoder, train
>>> short = {"max_epochs": 1, "accelerator": "cpu", "logger": False}
>>> parts = {"store": "mine/fields", "trainer": short, "data": {"num_workers": 0, "batch_size": 8}}
>>> model = train("classifier", TrainOptions(out="mine/classifier", model={"hidden": [8]}, **parts))
>>> classifier = load(model)  # any store or model by its folder; this is a WeightClassifier
>>> classifier.encoder.save_pretrained("mine/encoder")
>>> embeddings = load_encoder("mine/encoder")({name: tensor[None] for name, tensor in weights.items()})  # (1, E)
>>> small = {"width": 16, "depth": 1, "heads": 2}
>>> autoencoder = load(train("autoencoder", TrainOptions(out="mine/autoencoder", model=small, **parts)))
>>> isinstance(autoencoder, WeightAutoencoder)
True
>>> drawn = load(train("diffusion", TrainOptions(out="mine/diffusion", model=small, **parts)))
>>> isinstance(drawn, WeightDiffusionPipeline), len(drawn(2, num_inference_steps=2).fields)
(True, 2)

Align networks modulo the permutations of their neurons:

>>> from wsrl import PermutationSpec, match_weights
>>> spec = PermutationSpec.from_module(network, (inputs,))
>>> permutation = match_weights(spec, dict(network.state_dict()), dict(network.state_dict()))

What a person can mend is a :class:`UserError` that says what was wrong, what is allowed, and what to do:

>>> from wsrl import UserError
>>> try:
...     load("nowhere")
... except UserError as error:
...     print(error.wrong)
nowhere holds nothing that wsrl wrote
"""

from importlib import import_module

__version__ = "0.1.0"
_MODULES = {
    "open_source": "signals",
    "train_base": "training.base",
    "build_store": "fitting.build",
    "WeightStore": "store",
    "Representation": "fields",
    "RepresentationConfig": "fields",
    "FitConfig": "fitting.engine",
    "train": "training.run",
    "TrainOptions": "training.train_options",
    "load_encoder": "encoders.registry",
    "WeightAutoencoder": "encoders.autoencoder",
    "WeightDiffusionPipeline": "diffusion.pipeline",
    "PermutationSpec": "symmetry.spec.spec",
    "match_weights": "symmetry.matching.matching",
    "load": "saved",
    "UserError": "errors",
}
__all__ = list(_MODULES)


def __getattr__(name: str):
    """A name of the contents, whose module is imported when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'wsrl' has no attribute {name!r}")
    return getattr(import_module(f"wsrl.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    """The names of the contents beside those that every module has."""
    return sorted({*globals(), *_MODULES})
