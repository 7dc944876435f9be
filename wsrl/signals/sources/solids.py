"""Procedural shapes of nine families with exact signed distances; made from the seed and the index alone."""

import json
from dataclasses import dataclass

import numpy as np

from wsrl.errors import UserError
from wsrl.signals.shapes.shape import Content, ShapeOptions
from wsrl.signals.shapes.shape_source import ShapeSource
from wsrl.signals.solids.exact import ExactSolid
from wsrl.signals.solids.families import FAMILIES, make_union
from wsrl.signals.source_options import is_whole

VERSION = 4  # of the families and their distances: another one makes other signals
TEST_EVERY = 5


@dataclass(frozen=True, kw_only=True)
class SolidsOptions(ShapeOptions):
    """Options of ``solids``: those of all shapes, and how many there are; ``seed`` also draws the shapes.

    Attributes:
        num: Number of shapes; those of a smaller number are the first of a larger one.
    """

    num: int = 2_000

    def __post_init__(self):
        super().__post_init__()
        if not (is_whole(self.num) and self.num >= 1):
            raise UserError(f"num is {self.num!r}", allowed="a whole number from 1")


class Solids(ShapeSource):
    """Shapes of the families in turn, ids such as ``solids/train/00017``; labels are the families.

    Of every five rounds of the families the second is for testing: 405 of 2,000 shapes, as many of each family.
    """

    def __init__(self, options: SolidsOptions):
        """List the shapes; each is made when it is asked for."""
        self._families = list(FAMILIES)
        num_families = len(self._families)
        splits = ["test" if index // num_families % TEST_EVERY == 1 else "train" for index in range(options.num)]
        super().__init__(
            name="solids",
            ids=[f"solids/{split}/{index:05d}" for index, split in enumerate(splits)],
            labels=[self._families[index % num_families] for index in range(options.num)],
            splits=splits,
            options=options,
            details={"version": VERSION},
        )

    def content(self, position: int) -> Content:
        """See ``ShapeSource``."""
        recipe = {"solids": VERSION, "seed": self.options.seed, "index": position}
        return Content(json.dumps(recipe, sort_keys=True).encode(), lambda: self.solid(position))

    def solid(self, position: int) -> ExactSolid:
        """The shape itself."""
        generator = np.random.default_rng([self.options.seed, position])
        return ExactSolid(make_union(self._families[position % len(self._families)], generator))
