"""What every test may ask for: the real data and the reference results beside the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from services.postgres import postgres, postgres_url
from services.s3 import _server, s3

__all__ = ["_server", "postgres", "postgres_url", "s3"]

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


@pytest.fixture(scope="session")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a simulated delivery that no test may change."""
    from example_delivery import deliver

    return deliver(tmp_path_factory.mktemp("delivery")).path.parent


@pytest.fixture(scope="session")
def processed(delivery: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the archive of that delivery, which no test may change."""
    from example_delivery import process

    root = tmp_path_factory.mktemp("processed") / "archive"
    report = process(root, delivery / "telemetry", delivery / "ephemeris")
    assert not report["failed"]
    return root


@pytest.fixture
def archive_copy(processed: Path, tmp_path: Path) -> Path:
    """Return a copy of that archive, to be changed."""
    import shutil

    return Path(shutil.copytree(processed, tmp_path / "archive"))
