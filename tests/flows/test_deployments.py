"""What runs when: schedules as people write them, parameters as flows take them, refused before anything is started."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flows import command
from flows.deployments import DEPLOYMENTS, Site, chosen, parameters, parse_schedule, rows
from stixflow.errors import UsageError

SITE = Site("/a", inbox="/in", engine={"workers": 2}, science={"detector": "snip"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", {"interval": timedelta(seconds=90)}),
        ("5 m", {"interval": timedelta(minutes=5)}),
        ("2h", {"interval": timedelta(hours=2)}),
        ("1d", {"interval": timedelta(days=1)}),
        ("30 4 * * *", {"cron": "30 4 * * *"}),
        ("off", {}),
        ("None", {}),
    ],
)
def test_schedules(text: str, expected: dict[str, Any]) -> None:
    assert parse_schedule(text) == expected


@pytest.mark.parametrize("text", ["daily", "5", "5x", "-5m", "* * *", "every day"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no schedule"):
        parse_schedule(text)


def test_every_deployment_has_a_schedule_that_can_be_read() -> None:
    for one in DEPLOYMENTS:
        parse_schedule(one.schedule)


def test_without_an_inbox_nothing_is_ingested() -> None:
    assert "ingest" not in [one.flow for one in chosen(Site("/a"))]
    assert [one.flow for one in chosen(SITE)] == [one.flow for one in DEPLOYMENTS]
    with pytest.raises(UsageError, match="no inbox"):
        chosen(Site("/a"), ["ingest"])
    with pytest.raises(UsageError, match="no flow 'ingset'"):
        chosen(SITE, ["ingset"])


def test_parameters_are_plain_values_that_the_flow_takes() -> None:
    """Prefect checks them against the flow when a run is made, which may be months later: so here."""
    from flows import mission

    for one in DEPLOYMENTS:
        given = parameters(one, SITE)
        assert json.loads(json.dumps(given)) == given
        flow = getattr(mission, one.flow)
        assert flow.name == one.flow
        needed = {"release": "2026.1"} if one.flow == "reprocess" else {}
        flow.validate_parameters(given | needed)


def test_a_site_survives_the_way_to_its_runner() -> None:
    assert Site(**json.loads(json.dumps(asdict(SITE)))) == SITE


def test_settings_are_what_flows_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("stixflow.toml").write_text(
        'archive = "here"\ninbox = "s3://drop/now"\nworkers = 3\n[schedules]\ndaily = "1h"\nimages = "off"\n'
    )
    monkeypatch.setenv("STIXFLOW_CLOCK_KERNELS", "clock.tsc")
    assert command.main(["list", "--json", "--schedule", "daily=2h", "--serial"]) == 0
    told = {one["deployment"]: one for one in json.loads(capsys.readouterr().out)["deployments"]}
    assert told["daily/mission"]["schedule"] == "2h"
    assert told["images/mission"]["schedule"] == "off"
    daily = told["daily/mission"]["parameters"]
    assert daily["archive"] == str(tmp_path / "here")
    assert daily["engine"]["workers"] == 3
    assert daily["engine"]["serial"] is True
    assert daily["science"]["clock_kernels"] == [str(tmp_path / "clock.tsc")]
    assert told["ingest/mission"]["parameters"]["inbox"] == "s3://drop/now"


def test_the_list_says_what_runs_when(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["list", "--archive", "a"]) == 0
    said = capsys.readouterr().out
    assert all(one["schedule"] in said and one["about"] in said for one in rows(SITE))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["serve", "--schedule", "daily"], "names no schedule"),
        (["serve", "--schedule", "dayly=1h"], "no flow 'dayly'"),
        (["serve", "--schedule", "daily=soon"], "no schedule"),
        (["serve", "--only", "ingest"], "no inbox"),
        (["deploy"], "--pool"),
        ([], "COMMAND"),
    ],
)
def test_wrong_use_is_told_before_anything_starts(
    arguments: list[str],
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main(arguments) == 2
    assert reason in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
