"""No password of a catalog gets to Prefect, which keeps and shows what flows are given."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from services.prefect import Server

from flows.passwords import refuse_password, with_password, without_password
from stixflow.errors import UsageError

SECRET = "never-to-be-told"
URL = f"postgresql+psycopg://stixflow:{SECRET}@db:5432/stixflow"


@pytest.mark.parametrize(
    ("url", "bare"),
    [
        (URL, "postgresql+psycopg://stixflow@db:5432/stixflow"),
        ("postgresql+psycopg://stixflow@db/stixflow", "postgresql+psycopg://stixflow@db/stixflow"),
        ("postgresql+psycopg://stixflow:a@b:c@db/stixflow", "postgresql+psycopg://stixflow@db/stixflow"),
        ("postgresql+psycopg://db/s?user=u&password=x", "postgresql+psycopg://db/s?user=u"),
        ("postgresql+psycopg://db/s?password=x&user=u", "postgresql+psycopg://db/s?user=u"),
        ("sqlite:////srv/archive/catalog.sqlite", "sqlite:////srv/archive/catalog.sqlite"),
    ],
)
def test_a_url_without_its_password(url: str, bare: str) -> None:
    assert without_password(url) == bare
    assert without_password(bare) == bare
    if url == bare:
        refuse_password(url, "--catalog")
    else:
        with pytest.raises(UsageError, match="--catalog has a password"):
            refuse_password(url, "--catalog")


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "S")), min_size=4))
def test_no_password_survives(password: str) -> None:
    assert (
        without_password(f"postgresql+psycopg://someone:{password}@db/name") == "postgresql+psycopg://someone@db/name"
    )


def test_a_flow_takes_the_password_of_its_own_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIXFLOW_CATALOG", URL)
    assert with_password(without_password(URL)) == URL
    other = "postgresql+psycopg://stixflow@elsewhere/stixflow"
    assert with_password(other) == other, "a password is for one database"
    assert with_password(None) is None
    with pytest.raises(UsageError, match="STIXFLOW_CATALOG") as raised:
        with_password(URL)
    assert SECRET not in str(raised.value)


def _flows(environment: dict[str, str], folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.flow
def test_deployments_know_no_password(prefect_on_postgres: Server, tmp_path: Path) -> None:
    server = prefect_on_postgres
    site = ["deploy", "--pool", "quiet", "--create-pool", "--archive", str(tmp_path), "--name", "quiet"]
    told = _flows(dict(server.environment), tmp_path, *site, "--catalog", URL)
    assert told.returncode == 2
    assert "--catalog has a password" in told.stderr
    assert SECRET not in told.stderr
    told = _flows({**server.environment, "STIXFLOW_CATALOG": URL}, tmp_path, *site)
    assert told.returncode == 0, told.stderr
    found = [one for one in server.ask("deployments/filter", {}) if one["name"] == "quiet"]
    assert {one["parameters"]["catalog"] for one in found} == {without_password(URL)}
    assert SECRET not in json.dumps(found)


def test_the_flow_of_a_command_is_not_given_the_catalog() -> None:
    from flows.process import _process_flow

    flow = _process_flow(URL)
    assert "archive" in flow.parameters.properties
    assert "catalog" not in flow.parameters.properties
