"""What Prefect is told by its environment, set before it is imported: where its state is, no telemetry, no prompts."""

from __future__ import annotations

import os
from pathlib import Path


def _state_folder(archive: str) -> Path:
    """Return where Prefect keeps its state for an archive: in it, or for one in a bucket in the home of the user."""
    if "://" in archive:
        return Path.home() / ".stixflow" / "prefect"
    return Path(archive).resolve() / "prefect"


def prepare(archive: str) -> Path:
    """Set what Prefect reads at import, where the user has not, and return its home."""
    state = Path(os.environ.get("PREFECT_HOME") or _state_folder(archive))
    # Prefect makes its home, but not the folders above it.
    state.mkdir(parents=True, exist_ok=True)
    for name, value in {
        "PREFECT_HOME": str(state),
        "PREFECT_LOCAL_STORAGE_PATH": str(state / "results"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_UI_STATIC_DIRECTORY": str(state / "ui"),
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
        "PREFECT_CLI_PROMPT": "false",
        # In memory, where it is by default, it is lost with the server, and what was leased stays taken.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        # Logs and artifacts of flow runs that were removed go too.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,orphans",
    }.items():
        os.environ.setdefault(name, value)
    return state
