"""The Lightning task of the diffusion model on a real, tiny store."""

import lightning as L
import pytest
import torch

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.pipeline import WeightDiffusionPipeline
from wsrl.errors import UserError
from wsrl.fields.modulated_base import BaseField, BaseFieldConfig
from wsrl.fields.network import FieldConfig
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.store import FitResult
from wsrl.store.writer import ShardWriter, create_or_resume, finalize
from wsrl.training.diffusion import DiffusionTask
from wsrl.training.ema_task import save_whole
from wsrl.training.weight_data import WeightDataModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),  # lightning on torch 2.13
]

TINY = {"width": 16, "depth": 1, "local_depth": 1, "heads": 2, "warmup_steps": 2}
TRAINER = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


@pytest.fixture
def store(tmp_path):
    """A finished store of 40 fields scattered about the shared start."""
    field = FieldConfig(width=6, depth=2, num_frequencies=3)
    base = BaseField(BaseFieldConfig(field=field, latent_size=4, mapping_width=8, mapping_depth=1), 2, 1)
    representation = Representation.build(RepresentationConfig(kind="mlora_asym", rank=2), base)
    layout, generator = representation.layout, torch.Generator().manual_seed(0)
    create_or_resume(
        tmp_path / "store",
        layout=layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256(),
        source={"name": "toy", "grid": [4, 6], "channels": 1},
        fit={},
        num_signals=40,
        num_shards=1,
        label_names=(),
        save_base=base.save_pretrained,
    )
    start = layout.flatten(representation.initial())
    with ShardWriter(tmp_path / "store", 0) as writer:
        rows = []
        for index in range(40):
            vector = start + 0.1 * torch.randn(len(start), generator=generator) * layout.trainable()
            rows.append(FitResult(index=index, id=f"toy/{index}", weights=layout.unflatten(vector), split="train"))
        writer.write_segment(rows)
        writer.finish()
    finalize(tmp_path / "store")
    return tmp_path / "store"


class FixedOrder(WeightDataModule):
    """Train batches in the order of the store, so that only the task decides what a step does."""

    def train_dataloader(self):
        return self._loader("train", None)


def fit(store, root, epochs, checkpoint=None, callbacks=()):
    task = DiffusionTask(**TINY)
    trainer = L.Trainer(
        max_epochs=epochs, default_root_dir=root, callbacks=list(callbacks), enable_checkpointing=False, **TRAINER
    )
    data = FixedOrder(str(store), batch_size=16, num_workers=0)
    trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    return task, trainer


def test_it_trains_and_leaves_a_pipeline_that_samples(store, tmp_path):
    task, trainer = fit(store, tmp_path / "run", epochs=2)
    assert 0.2 < float(trainer.callback_metrics["train_loss"]) < 3
    assert 0.2 < float(trainer.callback_metrics["val_loss"]) < 3
    pipeline = WeightDiffusionPipeline.from_pretrained(tmp_path / "run" / "model")
    output = pipeline(3, generator=torch.Generator().manual_seed(0), num_inference_steps=4)
    assert [image.size for image in output.images] == [(6, 4)] * 3
    averaged = dict(task.average.module.named_parameters())
    for name, parameter in pipeline.transformer.named_parameters():
        assert torch.equal(parameter, averaged[name].cpu())
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"model"}


def test_a_resumed_run_ends_as_an_undisturbed_one_with_the_same_plan(store, tmp_path):
    whole, _ = fit(store, tmp_path / "whole", epochs=3)
    _, stopped = fit(store, tmp_path / "half", epochs=3, callbacks=[StopAfter(1)])
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _ = fit(store, tmp_path / "rest", epochs=3, checkpoint=tmp_path / "half.ckpt")
    for part in ("model", "average"):
        for name, tensor in getattr(whole, part).state_dict().items():
            torch.testing.assert_close(getattr(resumed, part).state_dict()[name], tensor, msg=f"{part}.{name}")


class StopAfter(L.Callback):
    """Ends a run after some epochs, as Ctrl-C between two epochs would."""

    def __init__(self, epochs):
        self.epochs = epochs

    def on_train_epoch_end(self, trainer, task):
        trainer.should_stop = trainer.current_epoch + 1 >= self.epochs


def test_a_checkpoint_loads_without_the_store(store, tmp_path):
    task, trainer = fit(store, tmp_path / "run", epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    again = DiffusionTask.load_from_checkpoint(tmp_path / "last.ckpt", map_location="cpu", weights_only=True)
    assert again.hparams.width == 16
    for name, tensor in task.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.cpu()), name
    pipeline = again.pipeline(FieldDecoder.from_store(trainer.datamodule.store))
    assert len(pipeline(2, generator=torch.Generator().manual_seed(0), num_inference_steps=2).images) == 2


def test_a_model_is_replaced_whole_and_a_disk_that_refuses_is_reported(store, tmp_path):
    task, trainer = fit(store, tmp_path / "run", epochs=1)
    before = (tmp_path / "run" / "model" / "model_index.json").stat().st_ino
    pipeline = task.pipeline(FieldDecoder.from_store(trainer.datamodule.store))
    save_whole(pipeline, tmp_path / "run" / "model")
    assert (tmp_path / "run" / "model" / "model_index.json").stat().st_ino != before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model"]
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match="Cannot write"):
        save_whole(pipeline, tmp_path / "file" / "model")


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"width is 10.*a multiple of heads, which is 4"):
        DiffusionTask(width=10, heads=4)
    with pytest.raises(UserError, match="ema_decay is 1"):
        DiffusionTask(ema_decay=1.0)
