from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from stixflow.archive import Catalog
from stixflow.archive.transactions import reading, writing

_SCRIPT = Path(__file__).with_name("power_loss.py")


def run(delivery: Path, root: Path, kind: str) -> dict[str, Any]:
    search = os.pathsep.join(str(_SCRIPT.parents[up]) for up in (1, 2))
    done = subprocess.run(
        [sys.executable, _SCRIPT, delivery, root, kind],
        env=os.environ | {"PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["failed"] == []
    assert found["commits"] > 5
    assert found["pointers"] > 20
    return found


@pytest.mark.parametrize("kind", ["all at once", "each"])
def test_what_the_catalog_points_to_survives_a_loss_of_power(delivery: Path, tmp_path: Path, kind: str) -> None:
    """At every commit, each store, packet set, quarantined piece and map that it points to is on the disk."""
    found = run(delivery, tmp_path / "archive", kind)
    assert found["lost"] == []
    if kind == "all at once":
        assert found["synced"] * 5 < found["written"]  # one pass for a store, not one for each of its objects


def test_the_look_sees_what_is_not_synced(delivery: Path, tmp_path: Path) -> None:
    rooms = {path.split("/")[0] for path in run(delivery, tmp_path / "archive", "never")["lost"]}
    assert rooms >= {"packets", "ql_lightcurve", "sci_pixels", "images"}


def test_commits_survive_too(tmp_path: Path, postgres_url: str) -> None:
    catalog = Catalog(f"sqlite:///{tmp_path / 'catalog.sqlite'}")
    with writing(catalog.engine) as connection:
        assert connection.execute(sa.text("PRAGMA synchronous")).scalar() == 2
    catalog.close()
    catalog = Catalog(postgres_url)
    with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        name = connection.execute(sa.text("SELECT current_database()")).scalar()
        connection.execute(sa.text(f"ALTER DATABASE {name} SET synchronous_commit = off"))
    catalog.close()
    with writing(catalog.engine) as connection:
        assert connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "on"
    with reading(catalog.engine) as connection:
        assert connection.execute(sa.text("SHOW synchronous_commit")).scalar() == "off"
    catalog.close()
