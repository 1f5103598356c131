"""What every test may ask for: the real data and the reference results beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_SHARED = Path(__file__).resolve().parents[2] / "shared"
_REQUIRED = os.environ.get("STIXFLOW_REQUIRE_SHARED") == "1"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real data and oracles; skip, with the reason, where a user does not have it."""
    if not _SHARED.is_dir():
        reason = f"needs the real data and reference results in {_SHARED.name}/ beside the checkout"
        if _REQUIRED:
            pytest.fail(f"STIXFLOW_REQUIRE_SHARED=1, but this test {reason}")
        pytest.skip(reason)
    return _SHARED
