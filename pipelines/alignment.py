"""Networks and zoos of fields aligned modulo permutation, and what that is worth.

    python -m pipelines.alignment --config configs/fashion_mnist/alignment_mlp512.yaml
    python -m pipelines.alignment --config configs/fashion_mnist/alignment_zoo.yaml

Either two networks trained apart, joined by a straight path before and after one is aligned with the other; or a zoo of
fields from random starts, read before and after all of them are aligned with one.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines import command
from pipelines.network_alignment import NetworksConfig, run_networks
from pipelines.zoo_alignment import ZooConfig, run_zoo
from wsrl.errors import UserError


@dataclass(frozen=True, kw_only=True)
class AlignmentConfig:
    """The experiment: one of the two parts.

    Attributes:
        name: Name of the record.
        networks: Networks that are aligned with each other.
        zoo: Fields that are aligned with one of them.
    """

    name: str
    networks: NetworksConfig | None = None
    zoo: ZooConfig | None = None

    def __post_init__(self):
        if (self.networks is None) == (self.zoo is None):
            raise UserError(
                "the experiment has to be one of two", allowed="either networks or zoo", do="give one of them"
            )


def run(config: AlignmentConfig) -> dict[str, float]:
    """Run the part that is given."""
    return run_networks(config.networks) if config.networks is not None else run_zoo(config.zoo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment and write its record."""
    command.record_of(make_parser(), AlignmentConfig, run, argv)
    return 0


def make_parser():
    """The parser of the command line."""
    return command.make_parser("alignment", AlignmentConfig, __doc__)


if __name__ == "__main__":
    sys.exit(main())
