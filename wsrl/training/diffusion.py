"""Training of a diffusion model over weights, as a Lightning task.

Letters: B fields of a batch, V numbers of a vector.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.denoiser import WeightTransformer
from wsrl.diffusion.denoising_loss import DenoisingLoss, training_scheduler
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.diffusion.samplers import sampler as make_sampler
from wsrl.diffusion.space import WeightSpace
from wsrl.encoders.autoencoder import WeightAutoencoder, open_autoencoder
from wsrl.errors import UserError
from wsrl.fields.gauge import RAW
from wsrl.options import SHARE, check_values, multiple_of
from wsrl.training.ema_task import VALIDATION_SEED, AveragedTask


class DiffusionTask(AveragedTask):
    """Trains a denoising transformer on the weights of a store, or on their latents.

    The network and the space are built from the data module when the run starts; after the last step the averaged
    network is saved as a :class:`WeightDiffusionPipeline` in ``<export_dir>/model``.

    Args:
        autoencoder: Folder of a weight autoencoder, in whose latents diffusion then happens; None for weights.
        scale: Without autoencoder: ``entry`` standardises each weight by itself, ``pooled`` all weights together.
        cut: Tokens of weights: ``component`` (a rank pair, a neuron) or ``layer``.
        conditional: Learn the classes of the store, to be asked for when sampling.
        class_dropout: Share of the training fields whose class is hidden; guidance needs some.
        width: Size of a token inside the transformer.
        depth: Blocks over the tokens of all layers.
        local_depth: Blocks inside each layer of the field.
        heads: Attention heads; divides the width.
        expansion: Hidden units of a block's feed-forward part, in widths.
        learning_rate: Peak step size of AdamW.
        weight_decay: Decoupled weight decay.
        warmup_steps: Steps over which the step size rises; it then falls to zero along a cosine.
        ema_decay: Decay of the moving average of the parameters.
        num_train_timesteps: Length of the noise process.
        beta_schedule: ``squaredcos_cap_v2``, ``linear`` or ``scaled_linear``.
        prediction_type: ``v_prediction``, ``sample`` (the clean vector), or ``epsilon`` (the noise; needs a linear
            schedule).
        min_snr_gamma: Largest weight of a timestep in the loss of the clean vector (arXiv 2303.09556); None for the
            plain loss.
        sampler: ``ddim``, ``ddpm`` or ``dpm++``, that of the saved pipeline.
        seed: Seed of initial parameters, timesteps and noise.
        export_dir: Where ``model/`` is written; None takes the trainer's root directory.
    """

    def __init__(
        self,
        autoencoder: str | None = None,
        scale: str = "entry",
        cut: str = "component",
        conditional: bool = False,
        class_dropout: float = 0.1,
        width: int = 128,
        depth: int = 3,
        local_depth: int = 1,
        heads: int = 4,
        expansion: int = 2,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        ema_decay: float = 0.995,
        num_train_timesteps: int = 1000,
        beta_schedule: str = "squaredcos_cap_v2",
        prediction_type: str = "v_prediction",
        min_snr_gamma: float | None = None,
        sampler: str = "ddim",
        seed: int = 0,
        export_dir: str | None = None,
    ):
        super().__init__()
        check_values(locals(), "model.", width=multiple_of(heads, "heads"), ema_decay=SHARE, class_dropout=SHARE)
        self.save_hyperparameters()
        process = training_scheduler(
            num_train_timesteps=num_train_timesteps, beta_schedule=beta_schedule, prediction_type=prediction_type
        )
        self.sampler = make_sampler(sampler, process)
        self.loss = DenoisingLoss(process, min_snr_gamma)
        self.model = self.average = self.space = None

    def setup(self, stage: str) -> None:
        """Build network and space from the data module, once."""
        if self.model is not None:
            return
        data, options = self.trainer.datamodule, self.hparams
        if options.conditional and len(data.label_names) < 2:
            raise UserError(
                f"the store {data.hparams.store} names {len(data.label_names)} classes: there is nothing to ask for",
                allowed="a store whose source has at least two classes",
                do="leave out model.conditional",
            )
        if options.autoencoder is None:
            space = WeightSpace.of(data.statistics(), options.scale)
        else:
            space = open_autoencoder(options.autoencoder, data.layout)
            if data.hparams.gauge not in (RAW, space.statistics.gauge):
                raise UserError(
                    f"data.gauge is {data.hparams.gauge!r}, and the autoencoder reads {space.statistics.gauge} weights",
                    allowed=f"{RAW}, which leaves it to the autoencoder",
                    do="leave out data.gauge, or train an autoencoder with it",
                )
        self.build(space, data.label_names if options.conditional else ())
        size = f"{self.model.num_parameters():,} parameters, {self.model.num_tokens} tokens"
        self.summary = f"denoiser: {size}, {self.model.count_flops() / 1e6:.1f} MFLOP for one field and step"

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Keep what rebuilds the networks, as plain types."""
        checkpoint["space"] = {"kind": type(self.space).__name__, "config": plain_config(self.space)}
        checkpoint["classes"] = list(self.model.config.classes)

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Rebuild the networks where there is no data module, as in ``load_from_checkpoint``."""
        if self.model is None:
            kind = {space.__name__: space for space in (WeightSpace, WeightAutoencoder)}[checkpoint["space"]["kind"]]
            self.build(kind(**checkpoint["space"]["config"]), checkpoint["classes"])

    def build(self, space: WeightSpace | WeightAutoencoder, classes: Sequence[str]) -> None:
        """Build the network for vectors of ``space``."""
        options = self.hparams
        self.space = space.train().requires_grad_(False)  # Lightning warns of parts in evaluation mode
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.model = WeightTransformer(
                **space.token_options,
                cut=options.cut,
                classes=list(classes),
                width=options.width,
                depth=options.depth,
                local_depth=options.local_depth,
                heads=options.heads,
                expansion=options.expansion,
            )
        self.start_average()

    def on_train_start(self) -> None:
        """The space is as it was trained: nothing is dropped in it."""
        self.space.eval()

    def training_step(self, batch, batch_index: int) -> Tensor:
        """Denoising loss; the noise depends on seed, step and process alone, so a resumed run sees the same."""
        generator = self.generator(self.hparams.seed, self.global_step, batch_index, self.global_rank)
        vectors = self.space.encode(batch.weights)
        loss = self.loss(self.model, vectors, generator, self._labels(batch, generator))
        self.log("train_loss", loss, prog_bar=True, batch_size=_batch_size(batch))
        return loss

    def validation_step(self, batch, batch_index: int) -> None:
        """Denoising loss of the averaged network under noise that never changes."""
        generator = self.generator(VALIDATION_SEED, batch_index, self.global_rank)
        vectors = self.space.encode(batch.weights)
        loss = self.loss(self.average.module, vectors, generator, self._labels(batch))
        self.log("val_loss", loss, prog_bar=True, batch_size=_batch_size(batch), sync_dist=True)

    def _labels(self, batch, generator: torch.Generator | None = None) -> Tensor | None:
        """Class numbers ``(B,)``, some hidden where a generator is given; None without classes."""
        if not self.model.config.classes:
            return None
        labels = batch.labels.to(self.device)
        if generator is None:
            return labels
        hidden = torch.rand(len(labels), generator=generator, device=self.device) < self.hparams.class_dropout
        return labels.masked_fill(hidden, -1)

    def pipeline(self, decoder: FieldDecoder) -> WeightDiffusionPipeline:
        """The averaged network as a pipeline; a copy of the configuration, sharing the parameters."""
        return WeightDiffusionPipeline(
            transformer=self.average.module,
            scheduler=self.sampler,
            space=self.space,
            decoder=decoder,
        )

    def exported(self) -> WeightDiffusionPipeline:
        """The pipeline with the base field of the store."""
        return self.pipeline(FieldDecoder.from_store(self.trainer.datamodule.store))


def plain_config(component) -> dict:
    """What a component of diffusers was built from, without what diffusers adds."""
    return {name: value for name, value in component.config.items() if not name.startswith("_")}


def _batch_size(batch) -> int:
    return len(next(iter(batch.weights.values())))
