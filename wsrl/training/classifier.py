"""Training a classifier on the weights of fields, with Lightning.

Letters: B fields, K classes.
"""

from torch import Tensor
from torch.nn.functional import cross_entropy

from wsrl.encoders.encoder import WeightEncoder
from wsrl.encoders.models import WeightClassifier
from wsrl.errors import UserError
from wsrl.training.encoder_task import WeightTask
from wsrl.training.weight_data import WeightDataModule


class ClassifierTask(WeightTask):
    """Cross entropy of the classes of the fields, by an encoder with a linear head.

    Logs ``train_loss``, and ``val_`` and ``test_`` ``loss`` and ``accuracy``. Fields without a label are left out.

    Args:
        label_smoothing: Share of each target that is spread over all classes.
        **kwargs: Options of every task over weights.
    """

    model_class = WeightClassifier

    def __init__(self, label_smoothing: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.save_hyperparameters({"label_smoothing": label_smoothing})

    def prepare(self, data: WeightDataModule) -> None:
        """Refuse a store without classes."""
        if len(data.label_names) < 2:
            raise UserError(
                f"the store {data.hparams.store} names {len(data.label_names)} classes: there is nothing to classify",
                allowed="a store whose source has at least two classes",
                do="build one from labelled data, such as a folder with one sub-folder per class",
            )

    def make_model(self, encoder: WeightEncoder, data: WeightDataModule) -> WeightClassifier:
        """The classifier of the store's classes."""
        return WeightClassifier(encoder, data.label_names, self.hparams.head_dropout)

    def training_step(self, batch, batch_index: int) -> Tensor:
        """Loss of one batch."""
        labelled = batch.labels >= 0
        vector = self.training_vector(batch.weights)[labelled]
        loss = cross_entropy(
            self.model.outputs(vector),
            batch.labels[labelled],
            label_smoothing=self.hparams.label_smoothing,
            reduction="sum",
        ) / labelled.sum().clamp_min(1)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch, batch_index: int) -> None:
        """Loss and accuracy on the held-out part of the training split."""
        self._score("val", batch)

    def test_step(self, batch, batch_index: int) -> None:
        """Loss and accuracy on the test split."""
        self._score("test", batch)

    def _score(self, part: str, batch) -> None:
        labelled = batch.labels >= 0
        if not bool(labelled.any()):
            return
        labels = batch.labels[labelled]
        logits = self.model(batch.weights)[labelled]
        accuracy = (logits.argmax(dim=1) == labels).float().mean()
        scores = {f"{part}_loss": cross_entropy(logits, labels), f"{part}_accuracy": accuracy}
        self.log_dict(scores, on_epoch=True, prog_bar=True, batch_size=len(labels), sync_dist=True)
