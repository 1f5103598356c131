"""Whether a run that was begun still goes on: who runs it, and when it was last seen.

On its own machine a run is as alive as its process. On another one it is alive while it says so: it is seen every half
minute, and taken for dead after five minutes of silence.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

BEAT_S = 30.0
"""How often a run says that it goes on."""
SILENCE_NS = 300 * 10**9
"""How long a run of another machine may be silent; clocks of machines must agree better than that."""

_UNOWNED_NS = 2 * 86_400 * 10**9
"""A run begun by a version that did not say who runs it: after this long it is taken for dead."""


def this_process() -> dict[str, Any]:
    """Return what a run keeps of the process that runs it: `host`, `pid`, and `process`, which no other one has."""
    pid = os.getpid()
    return {"host": socket.gethostname(), "pid": pid, "process": f"{_machine()} {_born(pid)}"}


def is_alive(run: Mapping[str, Any], now: int) -> bool:
    """Tell whether a run that has not ended goes on, `now` being ns since 1970."""
    if run["process"] is None:
        return bool(run["started"] > now - _UNOWNED_NS)
    machine, _, born = run["process"].partition(" ")
    if machine and machine == _machine():
        return _is_running(run["pid"], born)
    return bool(run["seen"] > now - SILENCE_NS)


@cache
def _machine() -> str:
    """Name this boot of this machine, and the space in which its process numbers mean something; empty if unknown."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    return ""


def _is_running(pid: int, born: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is there, and somebody else's
        pass
    return _born(pid) in ("", born)


def _born(pid: int) -> str:
    """Return when a process was started, in ticks since the boot; "gone" for one that has ended, empty if unknown."""
    try:
        # The name before it may hold blanks and brackets.
        found = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "gone" if found[0] in "ZX" else found[19]
