"""The settings of a command: argument > STIXFLOW_* variable > TOML file > default.

Built once at the edge and passed on as values; nothing inside the package reads them.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from stixflow.errors import MissingFile, UsageError

_CONFIG_NAME = "stixflow.toml"
PREFIX = "STIXFLOW_"


class Settings(BaseModel):
    """Everything a command may be told besides its arguments."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    archive: str = Field("stixflow-archive", description="root of the archive: a folder or an s3:// URL")
    catalog: str | None = Field(None, description="SQLAlchemy URL of the catalog; by default SQLite in the root")
    cluster: str = Field("local", description="where workers run: a cluster profile by name, or the path of a .toml")
    workers: int = Field(0, ge=0, description="worker processes; 0: as the cluster profile says")
    memory_limit: str = Field("auto", description="memory of one worker, as 2GB; auto: as the cluster profile says")
    serial: bool = Field(False, description="compute in this process, without a cluster")
    scheduler: str | None = Field(None, description="address of a running Dask scheduler, tcp://host:8786")
    detector: Literal["snip", "poisson"] = Field("snip", description="how flares are found: see docs/flares.md")
    clock_kernels: tuple[str, ...] = Field(
        (), description="SPICE clock kernel (.tsc) and leap seconds (.tls), or their folder, that date what is ingested"
    )
    methods: tuple[Literal["bp", "clean", "em", "mem_ge", "forward_fit"], ...] = Field(
        ("bp", "clean", "em", "forward_fit"), min_length=1, description="how flares are imaged: see docs/imaging.md"
    )
    inbox: str | None = Field(None, description="folder or s3:// prefix that scheduled runs take deliveries from")
    settle_seconds: float = Field(10.0, ge=0, description="a file of the inbox is whole when unchanged for so long")
    notify: tuple[str, ...] = Field(
        (), description="who is told of failed runs: http(s) addresses (JSON is posted), file:PATH, or commands"
    )
    schedules: dict[str, str] = Field(
        default_factory=dict, description="flow and when it runs, in place of its own: an interval as 5m, cron, or off"
    )
    tuning: str | None = Field(
        None, description="profile (.toml) of measured layouts and batches; none: see docs/performance.md"
    )

    @field_validator("clock_kernels", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        """Read several paths from one text, as from the environment."""
        return tuple(value.split(os.pathsep)) if isinstance(value, str) else value

    @field_validator("methods", mode="before")
    @classmethod
    def _split_methods(cls, value: object) -> object:
        """Read several methods from one text, with commas between."""
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("notify", mode="before")
    @classmethod
    def _split_targets(cls, value: object) -> object:
        """Read several targets from one text, one a line or between semicolons."""
        return tuple(_items(value)) if isinstance(value, str) else value

    @field_validator("schedules", mode="before")
    @classmethod
    def _split_schedules(cls, value: object) -> object:
        """Read several ``FLOW=WHEN`` from one text, one a line or between semicolons."""
        if not isinstance(value, str):
            return value
        return {name.strip(): when.strip() for name, _, when in (item.partition("=") for item in _items(value))}


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.replace("\n", ";").split(";") if item.strip()]


def load_settings(
    config: str | Path | None = None, *, environ: Mapping[str, str] | None = None, **arguments: object
) -> Settings:
    """Join arguments, environment, file and defaults; an argument of None counts as not given.

    Parameters
    ----------
    config
        A TOML file; by default ``stixflow.toml`` of the current folder, where there is one.

    Raises
    ------
    MissingFile
        If `config` is given and does not exist.
    UsageError
        If a value or a name makes no sense; every problem is named with where it came from.
    """
    environ = os.environ if environ is None else environ
    layers: list[tuple[str, dict[str, object]]] = [
        _file_layer(config),
        ("the environment", _environment_layer(environ)),
        ("the arguments", {name: value for name, value in arguments.items() if value is not None}),
    ]
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for source, values in layers:
        merged.update(values)
        origin.update(dict.fromkeys(values, source))
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise _usage_error(error, origin) from error


def _file_layer(config: str | Path | None) -> tuple[str, dict[str, object]]:
    path = Path(config) if config is not None else Path(_CONFIG_NAME)
    if not path.is_file():
        if config is None:
            return str(path), {}
        raise MissingFile(f"there is no settings file {path}", expected="a TOML file", advice="correct --config")
    try:
        return str(path), tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", expected="NAME = VALUE lines", advice="correct it") from error


def _environment_layer(environ: Mapping[str, str]) -> dict[str, object]:
    names = Settings.model_fields
    found = {name: environ.get(PREFIX + name.upper()) for name in names}
    return {name: value for name, value in found.items() if value}


def _usage_error(error: ValidationError, origin: Mapping[str, str]) -> UsageError:
    names = ["/".join(str(part) for part in item["loc"]) for item in error.errors()]
    problems = [
        f"{name} from {origin.get(name, 'the settings')}: {item['msg']} (found {item['input']!r})"
        for name, item in zip(names, error.errors(), strict=True)
    ]
    return UsageError(
        "; ".join(problems),
        expected=f"the settings {', '.join(Settings.model_fields)}",
        advice="correct the value where it came from",
    )
