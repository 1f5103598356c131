"""The onboard clock of a SPICE clock kernel as a value, which needs neither the kernel nor SPICE any more."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from stixflow.ephemeris.spice import Kernels
from stixflow.errors import MissingFile
from stixflow.time import ANCHOR_CLOCK, Clock

_KINDS = (".tsc", ".tls")


def read_clock(paths: Iterable[str | Path]) -> Clock:
    """Read the clock of a clock kernel (.tsc), with the leap seconds (.tls) that it needs.

    Parameters
    ----------
    paths
        The two files, or folders that hold them; of several clock kernels the last by name counts. Without any path:
        the anchor table.

    Raises
    ------
    MissingFile
        If either is not there.
    UsageError
        If spiceypy is not installed.
    """
    given = list(paths)
    if not given:
        return ANCHOR_CLOCK
    found = sorted((file for file in Kernels(given).files if file.suffix in _KINDS), key=lambda file: file.name)
    chosen = {file.suffix: file for file in found}
    for kind, what in zip(_KINDS, ("clock kernel", "leap seconds kernel"), strict=True):
        if kind not in chosen:
            raise MissingFile(
                f"no {what} in {', '.join(map(str, given))}",
                expected="a clock kernel (.tsc) and leap seconds (.tls)",
                advice="give both files",
            )
    with Kernels(chosen.values()) as kernels:
        starts, rates = kernels.clock_records()
        utc = kernels.scet_to_utc(starts)
    nanoseconds = (utc - np.datetime64("2000-01-01", "ns")).astype(np.int64)
    records = tuple(zip(starts.tolist(), nanoseconds.tolist(), rates.tolist(), strict=True))
    return Clock(", ".join(sorted(file.name for file in chosen.values())), records)


__all__ = ["read_clock"]
