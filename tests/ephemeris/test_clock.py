"""The clock of a kernel as a value: the same as SPICE, without SPICE."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from stixflow.ephemeris import Kernels, read_clock
from stixflow.errors import MissingFile
from stixflow.time import ANCHOR_CLOCK, clock_uncertainty, scet_to_utc

pytest.importorskip("spiceypy", reason="needs the extra spice")


@pytest.fixture(scope="module")
def files(shared: Path) -> list[Path]:
    return [shared / "data/spice/naif0012.tls", shared / "data/spice/solo_ANC_soc-sclk_20200611_V01.tsc"]


def test_the_clock_is_that_of_spice_to_a_microsecond(files: list[Path]) -> None:
    """Over the whole kernel, leap seconds before launch and extrapolation included."""
    clock = pickle.loads(pickle.dumps(read_clock(files)))
    ticks = np.random.default_rng(3).integers(0, 800_000_000 << 16, 4000)
    ticks = np.concatenate([ticks, [start + step for start, _, _ in clock.records for step in (0, 1, 65536)]])
    with Kernels(files) as kernels:
        apart = np.abs(clock.utc(ticks) - kernels.scet_to_utc(ticks))
    assert apart.max() <= np.timedelta64(1, "us")
    assert clock.name == "naif0012.tls, solo_ANC_soc-sclk_20200611_V01.tsc"


def test_a_later_kernel_agrees_within_the_stated_uncertainty(files: list[Path], shared: Path) -> None:
    pairs = json.loads((shared / "oracle/telemetry/scet_utc_spice.json").read_text())["pairs"]
    ticks = np.array([int(coarse) << 16 | int(fine) for coarse, fine in (scet.split(":") for scet, _ in pairs)])
    expected = np.array([utc for _, utc in pairs], dtype="datetime64[ns]")
    clock = read_clock(files)
    error = np.abs((clock.utc(ticks) - expected) / np.timedelta64(1, "ns")) * 1e-9
    assert (error <= clock.uncertainty(ticks)).all()
    assert error[ticks < clock.records[-1][0]].max() < 2e-6
    assert error.max() > 1.0


def test_without_a_kernel_it_is_the_table() -> None:
    ticks = np.array([640_000_000, 800_000_000]) << 16
    assert read_clock([]) is ANCHOR_CLOCK
    assert (ANCHOR_CLOCK.utc(ticks) == scet_to_utc(ticks)).all()
    assert (ANCHOR_CLOCK.uncertainty(ticks) == clock_uncertainty(ticks)).all()


@pytest.mark.parametrize(("given", "missing"), [(0, "no clock kernel"), (1, "no leap seconds kernel")])
def test_both_kernels_are_needed(files: list[Path], given: int, missing: str) -> None:
    with pytest.raises(MissingFile, match=missing):
        read_clock([files[given]])
