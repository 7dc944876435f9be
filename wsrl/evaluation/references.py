"""What sampled fields are compared with: training and held-out fields of a store beside its real pictures or shapes.

Letters: M training fields, H held-out fields, R references, C channels.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from wsrl.diffusion.decoder import FieldDecoder
from wsrl.evaluation.features import stored_weights
from wsrl.evaluation.generated_pictures import PictureReferences
from wsrl.evaluation.generated_shapes import ShapeReferences
from wsrl.evaluation.generation import GenerationOptions, KnownFields
from wsrl.evaluation.real_signals import picture_references, shape_references
from wsrl.fields.gauge import RAW
from wsrl.progress import ShowProgress, say, silent
from wsrl.store import WeightStore
from wsrl.store.splits import PARTS, part_codes


@dataclass(frozen=True)
class Comparison:
    """What every set of fields of one store is compared with; make one with :meth:`of` and use it for all sets.

    Attributes:
        store: The store.
        rows: Rows of the training and of the held-out fields, at most the limit of each.
        fields: Training and held-out fields, and what renders them.
        train_ids: Ids of all training fields, those beyond the limit too.
        references: What judges sets of fields.
        pictures: Real pictures ``(R, C, H, W)`` that are compared with, or None.
        facts: What is known of the features and the references, by name.
    """

    store: WeightStore
    rows: tuple[np.ndarray, np.ndarray]
    fields: KnownFields
    train_ids: frozenset[str]
    references: PictureReferences | ShapeReferences
    pictures: Tensor | None = None
    facts: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        store: WeightStore,
        decoder: FieldDecoder,
        options: GenerationOptions,
        progress: ShowProgress = silent,
        gauge: str = RAW,
    ) -> "Comparison":
        """Part a store as training a model parts it, and open the real pictures or shapes; says which.

        Args:
            store: The store that models are trained on.
            decoder: What renders its fields.
            options: Limits, features and seed.
            progress: Shows the training of a classifier or the meshing of shapes; takes lines on what is compared with.
            gauge: That of the model: the stored fields are compared in it.

        Raises:
            UserError: There are too few fields, or the source is another one.
        """
        # Training and held-out fields, as training a model parts them.
        rows, train_ids = parted_rows(store, options, progress)
        train, heldout = (stored_weights(store, part, gauge) for part in rows)
        fields = KnownFields(layout=store.layout, decoder=decoder, train=train, heldout=heldout)
        pictures = None
        # Real shapes by points of their surfaces, real pictures by the features of a classifier.
        if store.form.is_shape:
            points, facts = shape_references(store, rows[1], options, progress)
            how = {"resolution": options.resolution, "seed": options.seed, "progress": progress}
            references = ShapeReferences.build(fields, points, **how)
        else:
            features, pictures, facts = picture_references(store, train_ids, options, progress)
            say(
                progress,
                "memorisation: weights over their standard deviation in the training fields; pixels; "
                "root mean square over either",
            )
            references = PictureReferences.build(fields, features, pictures)
        return cls(store, rows, fields, train_ids, references, pictures, facts)


def parted_rows(
    store: WeightStore, options: GenerationOptions, progress: ShowProgress = silent
) -> tuple[tuple[np.ndarray, np.ndarray], frozenset[str]]:
    """Rows of training and of held-out fields as training a model parts them, and the ids of all training fields."""
    codes, generator = part_codes(store, 0.0, 0.2), np.random.default_rng(options.seed)
    every = [np.flatnonzero(codes == PARTS.index(name)) for name in ("train", "test")]
    # Without a test part some of the training fields stand in.
    if not len(every[1]):
        say(progress, "no held-out fields: a fifth of those that the model has seen stand in for them")
        order = generator.permutation(every[0])
        every = [np.sort(part) for part in np.split(order, [len(order) - max(1, len(order) // 5)])]
    train, heldout = (np.sort(generator.permutation(part)[: options.limit]) for part in every)
    say(progress, f"{len(train)} training and {len(heldout)} held-out fields of {store.directory}")
    ids = store.ids
    return (train, heldout), frozenset(ids[row] for row in every[0])
