"""Telling people that a flow run failed: webhooks, commands, a log file, as the setting `notify` names them."""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stixflow.settings import load_settings

_SECONDS = 20.0
_log = logging.getLogger("stixflow.flows")


def on_trouble(flow: Any, flow_run: Any, state: Any) -> None:
    """Tell every target of the setting `notify`; a hook of Prefect for failed and crashed runs."""
    tell(load_settings().notify, message_of(flow, flow_run, state))


def message_of(flow: Any, flow_run: Any, state: Any) -> dict[str, str]:
    """Return what is told: plain texts, with the line that chat services show as `text`."""
    return told_of(str(flow.name), flow_run, str(state.name), str(state.message or ""))


def told_of(flow: str, flow_run: Any, state: str, message: str) -> dict[str, str]:
    """Return what is told of a run by the name of its flow, its state and why it is in it."""
    return {
        "flow": flow,
        "run": str(flow_run.name),
        "flow_run_id": str(flow_run.id),
        "deployment_id": str(flow_run.deployment_id or ""),
        "state": state,
        "message": message,
        "archive": str((flow_run.parameters or {}).get("archive", "")),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "text": f"stixflow {flow} {state.lower()} ({flow_run.name}): {message}",
    }


def tell(targets: Sequence[str], message: Mapping[str, str]) -> None:
    """Send a message to each target; one that cannot be reached does not keep the others from it.

    Parameters
    ----------
    targets
        ``http(s)://...``: the message is posted as JSON. ``file:PATH``: it is added as a line of JSON. Anything else is
        a command, which gets it as JSON on its standard input.
    """
    for target in targets:
        try:
            _send(target, json.dumps(message))
        except Exception as error:  # whatever goes wrong out there
            _log.error("%s was not told of %s: %s", _shown(target), message.get("run"), type(error).__name__)


def _shown(target: str) -> str:
    """Name a target without what may be secret in it."""
    if target.startswith(("http://", "https://")):
        return str(urllib.parse.urlsplit(target).hostname)
    return target if target.startswith("file:") else target.split()[0]


def _send(target: str, text: str) -> None:
    if target.startswith(("http://", "https://")):
        request = urllib.request.Request(target, text.encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=_SECONDS):
            return
    if target.startswith("file:"):
        with Path(target.removeprefix("file:")).open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")
        return
    subprocess.run(shlex.split(target), input=text, text=True, timeout=_SECONDS, check=True, stdout=subprocess.DEVNULL)
