"""Where workers run, as data: cluster profiles, read from TOML and checked before anything is started."""

from __future__ import annotations

import os
import re
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from stixflow.errors import MissingFile, UsageError

_SUFFIX = ".toml"
_LIFETIME_MARGIN_S = 300
LIFETIME_STAGGER_S = 240
"""Workers of a job end up to this much earlier or later, so that they do not all end at once."""


def parse_memory(text: str) -> int:
    """Read an amount of memory, as ``4GB`` or ``4GiB``, into bytes."""
    from dask.utils import parse_bytes

    try:
        found = int(parse_bytes(text))
    except ValueError as error:
        raise ValueError("expected an amount of memory, as 4GB or 4GiB") from error
    if found <= 0:
        raise ValueError("expected an amount of memory above zero, as 4GB")
    return found


def _check_memory(text: str) -> str:
    if text != "auto":
        parse_memory(text)
    return text


def _check_memory_given(text: str) -> str:
    parse_memory(text)
    return text


def parse_walltime(text: str) -> int:
    """Read ``[DAYS-]HOURS:MINUTES:SECONDS`` into seconds."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d{1,2}):([0-5]\d):([0-5]\d)", text)
    if match is None:
        raise ValueError("expected [DAYS-]HH:MM:SS, as 12:00:00")
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _check_walltime(text: str) -> str:
    if parse_walltime(text) < 2 * _LIFETIME_MARGIN_S + LIFETIME_STAGGER_S:
        raise ValueError("expected at least 00:14:00, so that workers can end before their job is killed")
    return text


def _check_address(text: str) -> str:
    if not re.fullmatch(r"(tcp|tls|ucx|ws|wss)://[^\s/]+:\d+", text):
        raise ValueError("expected PROTOCOL://HOST:PORT, as tcp://dask-scheduler:8786")
    return text


def _check_name(text: str) -> str:
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,48}[a-z0-9])?", text):
        raise ValueError("expected a Kubernetes name: lower-case letters, digits, hyphens")
    return text


Memory = Annotated[str, AfterValidator(_check_memory)]
GivenMemory = Annotated[str, AfterValidator(_check_memory_given)]
Walltime = Annotated[str, AfterValidator(_check_walltime)]
Address = Annotated[str, AfterValidator(_check_address)]
Name = Annotated[str, AfterValidator(_check_name)]


class _Profile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    wait_seconds: float = Field(300.0, gt=0, description="how long to wait for a worker where there is none")


class LocalProfile(_Profile):
    """Processes of this machine."""

    kind: Literal["local"]
    workers: int = Field(0, ge=0, description="processes; 0: one for each core")
    threads: int = Field(1, ge=1, description="threads of a process; Python gains nothing from more than 1")
    memory: Memory = Field("auto", description="of one process; auto: an equal share of the machine")
    dashboard: str | None = Field(None, description="HOST:PORT of Dask's dashboard; none: not shown")


class AddressProfile(_Profile):
    """A scheduler that runs already."""

    kind: Literal["address"]
    address: Address


class SlurmProfile(_Profile):
    """Jobs of SLURM, each with several workers; the scheduler runs where the command runs."""

    kind: Literal["slurm"]
    workers: int = Field(ge=1, description="processes in all")
    workers_per_job: int = Field(1, ge=1, description="processes, and cores, of one job")
    memory: GivenMemory = Field(description="of one process")
    walltime: Walltime
    queue: str | None = Field(None, description="partition; none: the default of the site")
    account: str | None = None
    interface: str | None = Field(None, description="network between the nodes, as ib0")
    local_directory: str | None = Field(None, description="scratch of a node, as $TMPDIR")
    log_directory: str | None = Field(None, description="where jobs write what they print; all nodes must see it")
    prologue: tuple[str, ...] = Field((), strict=False, description="lines of the job script before the worker")
    directives: tuple[str, ...] = Field((), strict=False, description="more options of sbatch, as --constraint=avx2")
    python: str | None = Field(None, description="Python of the nodes; none: the one that runs the command")
    dashboard: str | None = Field(None, description="HOST:PORT of Dask's dashboard")

    @property
    def jobs(self) -> int:
        return -(-self.workers // self.workers_per_job)

    @property
    def lifetime_s(self) -> int:
        """Seconds after which a worker ends by itself, having handed over what it has."""
        return parse_walltime(self.walltime) - _LIFETIME_MARGIN_S


class KubernetesProfile(_Profile):
    """A DaskCluster of the Dask operator: scheduler and workers are pods."""

    kind: Literal["kubernetes"]
    name: Name
    namespace: Name | None = Field(None, description="none: that of the current context")
    image: str
    workers: int = Field(ge=1)
    memory: GivenMemory = Field(description="of one worker")
    cpu: str = Field("1", pattern=r"^\d+(\.\d+)?m?$", description="cores of one worker")
    scheduler_memory: GivenMemory = "2GiB"
    service_account: str | None = None
    secrets: tuple[Name, ...] = Field((), strict=False, description="Secrets whose keys become environment variables")
    environment: dict[str, str] = Field(default_factory=dict)
    volumes: dict[Name, str] = Field(default_factory=dict, description="claims (PVC) and where they are mounted")
    node_selector: dict[str, str] = Field(default_factory=dict)
    idle_seconds: int = Field(3600, ge=0, description="an idle cluster ends after this time; 0: never")


Profile = LocalProfile | AddressProfile | SlurmProfile | KubernetesProfile
_ADAPTER: TypeAdapter[Profile] = TypeAdapter(Annotated[Profile, Field(discriminator="kind")])


def profile_names() -> tuple[str, ...]:
    """Name the profiles that come along."""
    return tuple(
        sorted(item.name.removesuffix(_SUFFIX) for item in _shipped().iterdir() if item.name.endswith(_SUFFIX))
    )


def load_profile(name: str | Path = "local", **overrides: Any) -> Profile:
    """Read a cluster profile.

    Parameters
    ----------
    name
        One of `profile_names`, or the path of a TOML file.
    overrides
        Keys that replace those of the file where they are not None and the kind of cluster has them.

    Raises
    ------
    MissingFile
        If there is no such profile.
    UsageError
        If a key or value makes no sense; all of them are named.
    """
    place, text = _read(str(name))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{place} is not TOML: {error}", expected="KEY = VALUE lines", advice="correct it") from error
    kind = _KINDS.get(str(values.get("kind")), _Profile)
    values |= {key: value for key, value in overrides.items() if value is not None and key in kind.model_fields}
    try:
        return _ADAPTER.validate_python(values)
    except ValidationError as error:
        raise _usage_error(place, error) from error


_KINDS: dict[str, type[_Profile]] = {
    "local": LocalProfile,
    "address": AddressProfile,
    "slurm": SlurmProfile,
    "kubernetes": KubernetesProfile,
}


def _read(name: str) -> tuple[str, str]:
    if name.endswith(_SUFFIX) or os.sep in name:
        path = Path(name)
        if not path.is_file():
            raise _missing(f"there is no cluster profile {name}")
        return name, path.read_text(encoding="utf-8")
    if name not in profile_names():
        raise _missing(f"there is no cluster profile {name!r}")
    return f"profile {name}", (_shipped() / f"{name}{_SUFFIX}").read_text(encoding="utf-8")


def _missing(found: str) -> MissingFile:
    return MissingFile(
        found, expected=f"{', '.join(profile_names())}, or the path of a .toml file", advice="correct --cluster"
    )


def _shipped() -> Any:
    return files("stixflow.compute") / "clusters"


def _usage_error(place: str, error: ValidationError) -> UsageError:
    problems = []
    for item in error.errors():
        key = "/".join(str(part) for part in item["loc"][1:]) or "kind"  # the first is the kind itself
        message = item["msg"].removeprefix("Value error, ")
        found = "" if item["type"] in ("missing", "union_tag_not_found") else f" (found {item['input']!r})"
        problems.append(f"{key}: {message}{found}")
    return UsageError(
        f"{place}: {'; '.join(problems)}",
        expected="the keys of the profiles that come along: `stixflow cluster NAME` shows one",
        advice="correct the profile",
    )


def not_installed(extra: str, package: str) -> MissingFile:
    """Return the error of a profile that needs a package of an extra that is not there."""
    return MissingFile(
        f"the profile needs {package}, which is not installed",
        expected=f"the extra {extra}",
        advice=f'pip install "stixflow[{extra}]"',
    )
