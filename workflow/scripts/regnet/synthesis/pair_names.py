"""The names of the synthetic pairs of an image. Imports little, because the rules use it while Snakemake starts."""

from collections.abc import Iterable
from typing import NamedTuple

MOVING = ("original", "deformed")
"""The moving image of a pair: the image itself, or a deformed version of it."""


class PairName(NamedTuple):
    """A synthetic pair of an image: one of `MOVING`, and the spatial frequency of the DVF that makes the fixed image."""

    moving: str
    frequency: str

    def __str__(self) -> str:
        """The pair as paths name it, such as ``original_low``."""
        return f"{self.moving}_{self.frequency}"

    @classmethod
    def of(cls, text: str) -> "PairName":
        """The pair that a path names."""
        moving, _, frequency = text.partition("_")
        return cls(moving, frequency)


def pair_names(frequencies: Iterable[str]) -> list[PairName]:
    """All synthetic pairs of an image, for the frequencies in the config."""
    frequencies = list(frequencies)
    return [PairName(moving, frequency) for moving in MOVING for frequency in frequencies]
