"""The books of a build: every count of the records is in a cube, repeated, or of a packet that was not placed."""

from __future__ import annotations

from dataclasses import dataclass

from stixflow.errors import BalanceError


@dataclass(frozen=True, slots=True)
class Books:
    """Where the counts of the records went.

    Raises
    ------
    BalanceError
        If a count is neither in a cube, nor repeated, nor unplaced.
    """

    counts_in: int
    """Sum of the decompressed counts of all records given; of a product without counts, their samples."""
    counts: int
    """Sum of the counts in the cubes; of a product without counts, their samples."""
    repeated_counts: int = 0
    """Sum of the counts of bins that were received twice, without the first time."""
    unplaced_counts: int = 0
    """Sum of the counts of packets that contradict themselves."""
    corrected_counts: int = 0
    """Sum of the counts of bins that a correction left out."""
    repeated_bins: int = 0
    conflicting_bins: int = 0
    """Repeated bins whose counts differ from those received first."""
    unplaced_packets: int = 0

    def __post_init__(self) -> None:
        parts = self.counts + self.repeated_counts + self.unplaced_counts + self.corrected_counts
        if self.counts_in != parts:
            raise BalanceError(
                f"{self.counts_in} counts in the records, {self.counts} in the cubes, {self.repeated_counts} repeated, "
                f"{self.unplaced_counts} unplaced, {self.corrected_counts} left out by corrections",
                expected="the parts to add up to the whole",
                advice="report this with the packets: counts were lost or counted twice",
            )


__all__ = ["Books"]
