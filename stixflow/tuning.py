"""Settings that were measured: how stores are cut and packed, how jobs are batched.

A profile of tuning is a TOML file that `stixflow bench layout` and `stixflow bench fanout` write and that runs read
(setting `tuning`). It changes how fast a run is and how its stores lie on disk, never a value in them: cubes of two
profiles are equal, the digests of their stores are not.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stixflow.cubes.model import PRODUCTS, Layout
from stixflow.errors import MissingFile, UsageError

_FANOUT = {"batch_seconds": float, "window": int}
_LEVELS = range(1, 23)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a run may be told of layouts, by product, and of batches; the rest is as the data model says."""

    name: str = ""
    """Name of the profile and the digest of what it says; empty for none."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    batch_seconds: float = 2.0
    """How long a batch of jobs should take on a worker."""
    window: int = 3
    """Batches in flight for each worker thread."""

    def layout(self, product: str) -> Layout:
        """Return how the stores of a product are laid out."""
        return self.layouts.get(product, PRODUCTS[product].layout)

    @property
    def batches(self) -> dict[str, Any]:
        """Arguments of `map_batches`."""
        return {"batch_seconds": self.batch_seconds, "window": self.window}


UNTUNED = Tuning()


def read_tuning(path: str | Path) -> Tuning:
    """Read a profile.

    Raises
    ------
    MissingFile
        If it is not there.
    UsageError
        If it is not a profile; every problem is named.
    """
    place = Path(path)
    if not place.is_file():
        raise MissingFile(
            f"there is no tuning profile {path}",
            expected="a TOML file of `stixflow bench layout` or `stixflow bench fanout`",
            advice="correct --tuning or the setting `tuning`",
        )
    try:
        found = tomllib.loads(place.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not TOML: {error}", expected="NAME = VALUE lines", advice="correct it") from error
    problems = [*_problems(found)]
    if problems:
        raise UsageError(
            f"{path}: {'; '.join(problems)}",
            expected="[fanout] with batch_seconds and window, [layout.PRODUCT] with chunks, shard_time, whole_bytes, "
            "level; and [measured], which is not read",
            advice="correct it, or measure it again",
        )
    layouts = {product: _layout(product, values) for product, values in found.get("layout", {}).items()}
    made = Tuning("", layouts, **found.get("fanout", {}))
    return replace(made, name=f"{place.stem} {_digest(made)}")


def _layout(product: str, values: Mapping[str, Any]) -> Layout:
    known = PRODUCTS[product].layout
    given = dict(values)
    if given.get("shard_time") == 0:
        given["shard_time"] = None
    return replace(known, **given)


def _digest(tuning: Tuning) -> str:
    """Return a digest of what the stores depend on: batches leave no trace in them."""
    text = json.dumps({name: asdict(layout) for name, layout in sorted(tuning.layouts.items())}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _problems(found: Mapping[str, Any]) -> list[str]:
    problems = [f"[{name}] is unknown" for name in found if name not in ("measured", "fanout", "layout")]
    for name, value in found.get("fanout", {}).items():
        if name not in _FANOUT:
            problems.append(f"fanout.{name} is unknown")
        elif type(value) not in (int, _FANOUT[name]) or value <= 0:
            problems.append(f"fanout.{name} is {value!r}, not a number above zero")
    for product, values in found.get("layout", {}).items():
        problems += [f"layout.{product}{text}" for text in _layout_problems(product, values)]
    return problems


def _layout_problems(product: str, values: Mapping[str, Any]) -> list[str]:
    if product not in PRODUCTS:
        return [" is no product"]
    known = {one.name for one in fields(Layout)}
    problems = [f".{name} is unknown" for name in values if name not in known]
    chunks = values.get("chunks", {})
    dims = {dim for variable in PRODUCTS[product].variables.values() for dim in variable.dims}
    problems += [f".chunks.{name} is no dimension of it" for name in chunks if name not in dims]
    whole = {f"chunks.{name}": value for name, value in chunks.items()}
    whole |= {name: values[name] for name in ("shard_time", "whole_bytes") if name in values}
    least = {"shard_time": 0, "whole_bytes": 0}
    for name, value in whole.items():
        if type(value) is not int or value < least.get(name, 1):
            problems.append(f".{name} is {value!r}, not a whole number from {least.get(name, 1)}")
    if values.get("level", 1) not in _LEVELS:
        problems.append(f".level is {values['level']!r}, not one of zstd, {_LEVELS[0]} to {_LEVELS[-1]}")
    return problems


def format_tuning(tuning: Tuning, measured: Mapping[str, str]) -> str:
    """Write a profile as TOML, with where its values come from."""
    lines = ["[measured]", *(f"{name} = {json.dumps(text)}" for name, text in measured.items())]
    lines += ["", "[fanout]", f"batch_seconds = {tuning.batch_seconds}", f"window = {tuning.window}"]
    for product, layout in sorted(tuning.layouts.items()):
        chunks = ", ".join(f"{name} = {size}" for name, size in layout.chunks.items())
        lines += ["", f"[layout.{product}]", f"chunks = {{ {chunks} }}"]
        lines += [f"shard_time = {layout.shard_time or 0}  # 0: every chunk is an object"]
        lines += [f"whole_bytes = {layout.whole_bytes}", f"level = {layout.level}"]
    return "\n".join(lines) + "\n"
