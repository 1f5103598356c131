"""The reference data that several telemetry tests compare with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_packets import read_json

from stixflow.telemetry import Packets


@pytest.fixture(scope="session")
def synthetic(shared: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = read_json(shared / "oracle/telemetry/synthetic/synthetic_packets.json.gz")
    return found


@pytest.fixture(scope="session")
def lb_packets(shared: Path) -> Packets:
    return Packets.from_bytes((shared / "oracle/telemetry/lb_packets.bin").read_bytes())


@pytest.fixture(scope="session")
def lb_oracle(shared: Path) -> dict[str, Any]:
    with np.load(shared / "oracle/telemetry/lb_lightcurve.npz") as file:
        return dict(file)
