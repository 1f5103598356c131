"""Who is told of a run that failed: web addresses, files, commands; one that is gone keeps no other from it."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.notify import message_of, on_trouble, tell

RUN = SimpleNamespace(name="big-owl", id="1", deployment_id=None, parameters={"archive": "/a"})
STATE = SimpleNamespace(name="Failed", message="2 failed, the first: cubes: x: no room")
FLOW = SimpleNamespace(name="daily")


def test_the_message_says_what_where_and_why() -> None:
    told = message_of(FLOW, RUN, STATE)
    assert told["text"] == "stixflow daily failed (big-owl): 2 failed, the first: cubes: x: no room"
    assert (told["flow"], told["archive"], told["state"]) == ("daily", "/a", "Failed")


def test_files_get_a_line_and_commands_their_input(tmp_path: Path) -> None:
    log, copy = tmp_path / "trouble.jsonl", tmp_path / "copy"
    code = f"import sys; open({str(copy)!r}, 'w').write(sys.stdin.read())"
    for _ in range(2):
        tell([f"file:{log}", f'{sys.executable} -c "{code}"'], {"run": "big-owl"})
    assert [json.loads(line) for line in log.read_text().splitlines()] == [{"run": "big-owl"}] * 2
    assert json.loads(copy.read_text()) == {"run": "big-owl"}


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:9/hook?key=secret", "file:/nowhere/log", "false", "no-such-command"]
)
def test_one_that_cannot_be_told_keeps_no_other_from_it(
    target: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "trouble.jsonl"
    with caplog.at_level(logging.ERROR, "stixflow.flows"):
        tell([target, f"file:{log}"], {"run": "big-owl"})
    assert json.loads(log.read_text())["run"] == "big-owl"
    assert "was not told of big-owl" in caplog.text
    assert "secret" not in caplog.text


def test_the_setting_names_who(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STIXFLOW_NOTIFY", f"file:{tmp_path}/one; file:{tmp_path}/two")
    on_trouble(FLOW, RUN, STATE)
    assert [json.loads((tmp_path / name).read_text())["run"] for name in ("one", "two")] == ["big-owl"] * 2
