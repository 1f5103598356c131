"""What a reprocess will take: items, packets and bytes, and seconds by the rates of earlier runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from stixflow.archive import Archive, PacketSet, Partition
from stixflow.cubes.files import open_files
from stixflow.stages.run import Work, work_of

_RUNS_READ = 100
_LEAST_ERROR = 0.1
"""Of a rate, relative: machines are not equally fast every day."""
_GUESS_ERROR = 1.0

_GUESSED = {"cubes": 0.05, "flares": 1.0, "images": 1.0, "months": 0.2}
"""Worker seconds of one item where no run has recorded any: by a day of simulated telemetry on one core."""
_GUESSED_COORDINATOR = 0.01
_BYTES_OF_MAP = 90_000
_WRITTEN_OF_READ = 1.5
"""Bytes of a store for each byte of packets, where there is no earlier store to tell."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Worker seconds of one item, or of one packet of its inputs, and how far off they may be."""

    seconds: float
    error: float
    """Standard error, as a share of it."""
    items: int
    """How many were recorded; none for a guess."""
    per_packet: bool = False

    def of(self, items: int, packets: int) -> float:
        """Return the seconds of so many items of so many packets."""
        return self.seconds * (packets if self.per_packet else items)


@dataclass(frozen=True, slots=True)
class Part:
    """One stage of one product: how much of it is to be done, and what that takes."""

    stage: str
    product: str
    items: int
    packets: int
    bytes_read: int
    bytes_written: int
    rate: Rate

    @property
    def cpu_seconds(self) -> float:
        return self.rate.of(self.items, self.packets)

    def as_row(self) -> dict[str, Any]:
        """Return plain values."""
        names = ("stage", "product", "items", "packets", "bytes_read", "bytes_written")
        low, high = _bounds(self.cpu_seconds, self.rate.error)
        seconds = {"cpu_seconds": round(self.cpu_seconds, 1), "low": round(low, 1), "high": round(high, 1)}
        told = f"{self.rate.items} recorded" if self.rate.items else "guess"
        return {name: getattr(self, name) for name in names} | seconds | {"rate": told}


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates by stage and product, learnt from the runs that the catalog keeps."""

    by_kind: Mapping[str, Rate] = field(default_factory=dict)
    coordinator: float = _GUESSED_COORDINATOR
    """Seconds of the coordinating process for each item; they do not shrink with more workers."""

    def of(self, stage: str, product: str = "") -> Rate:
        """Return the rate of a stage and product, of the stage, or a guess."""
        for name in (f"{stage} {product}".strip(), stage):
            if name in self.by_kind:
                return self.by_kind[name]
        return Rate(_GUESSED.get(stage, 1.0), _GUESS_ERROR, 0)


def read_rates(archive: Archive) -> Rates:
    """Learn rates from the latest runs: for cubes by packet, for everything else by item."""
    runs = [row for row in archive.catalog.runs() if row["summary"].get("work")][:_RUNS_READ]
    packets = _packets_of_runs(archive, {row["run_id"] for row in runs})
    records: dict[str, list[tuple[Work, int]]] = {}
    for row in runs:
        for kind, values in row["summary"]["work"].items():
            if values["items"]:
                records.setdefault(kind, []).append((work_of(values), packets[row["run_id"], kind]))
    costs = [cost for row in runs for cost in row["summary"].get("cost", {}).values() if cost.get("items")]
    items = sum(cost["items"] for cost in costs)
    seconds = sum(cost["coordinator_cpu_seconds"] for cost in costs)
    return Rates(
        {kind: _rate(found) for kind, found in records.items()}, seconds / items if items else _GUESSED_COORDINATOR
    )


def _packets_of_runs(archive: Archive, runs: set[str]) -> Counter[tuple[str, str]]:
    """Count the packets of the partitions that each run has built, by kind of work."""
    of_key = _packets_by_key(archive.catalog.packet_sets())
    found: Counter[tuple[str, str]] = Counter()
    for run_id, product, key in archive.catalog.built_by(runs):
        found[run_id, f"cubes {product}"] += of_key[product, key]
    return found


def _packets_by_key(sets: Iterable[PacketSet]) -> Counter[tuple[str, str]]:
    """Count the packets that the archive keeps of each partition."""
    found: Counter[tuple[str, str]] = Counter()
    for item in sets:
        found[item.product, item.key] += item.n_packets
    return found


def _rate(found: Sequence[tuple[Work, int]]) -> Rate:
    items = sum(work.items for work, _ in found)
    seconds = sum(work.seconds for work, _ in found)
    packets = sum(number for _, number in found)
    per_packet = all(number for _, number in found)
    rate = seconds / (packets if per_packet else items)
    sizes = [(work.seconds, number if per_packet else work.items) for work, number in found]
    return Rate(rate, _error(found, rate, sizes), items, per_packet)


def _error(found: Sequence[tuple[Work, int]], rate: float, sizes: Sequence[tuple[float, int]]) -> float:
    """Return the relative error of a rate: the scatter between runs, or that of items where there are few runs."""
    if len(sizes) >= 3 and rate > 0:
        total = sum(size for _, size in sizes)
        spread = sum((seconds - rate * size) ** 2 for seconds, size in sizes) / (len(sizes) - 1)
        return max(_LEAST_ERROR, math.sqrt(spread * len(sizes)) / (rate * total))
    items = sum(work.items for work, _ in found)
    mean = sum(work.seconds for work, _ in found) / items
    square = sum(work.squares for work, _ in found) / items
    scatter = math.sqrt(max(0.0, square - mean**2)) / mean if mean else 1.0
    return max(2 * _LEAST_ERROR, (scatter or 1.0) / math.sqrt(items))


def cube_parts(
    archive: Archive, rates: Rates, todo: Mapping[tuple[str, str], Sequence[PacketSet]], present: Iterable[Partition]
) -> list[Part]:
    """Return what building partitions takes, by product."""
    sizes = open_files(archive.url("packets")).list()
    earlier = {(item.product, item.key): item.n_bytes for item in present}
    parts = []
    for product in sorted({name for name, _ in todo}):
        mine = {key: sets for key, sets in todo.items() if key[0] == product}
        packets = sum(item.n_packets for sets in mine.values() for item in sets)
        read = {
            key: sum(sizes.get(item.path.removeprefix("packets/"), 0) for item in sets) for key, sets in mine.items()
        }
        written = sum(earlier.get(key, round(_WRITTEN_OF_READ * read[key])) for key in mine)
        rate = rates.of("cubes", product)
        parts.append(Part("cubes", product, len(mine), packets, sum(read.values()), written, rate))
    return parts


def finding_parts(
    rates: Rates, days: Sequence[Partition], flares: int, images: int, requests: Sequence[Partition]
) -> list[Part]:
    """Return what searching days and imaging flares takes."""
    mean = sum(item.n_bytes for item in requests) / len(requests) if requests else 0.0
    read = 3 * sum(item.n_bytes for item in days)
    return [
        Part("flares", "", len(days), 0, read, 0, rates.of("flares")),
        Part("images", "", flares, 0, round(2 * mean * flares), images * _BYTES_OF_MAP, rates.of("images")),
    ]


def total(parts: Sequence[Part], rates: Rates, workers: int) -> dict[str, Any]:
    """Return the sums of a plan, and how long it takes so many workers."""
    cpu = sum(part.cpu_seconds for part in parts)
    error = math.sqrt(sum((part.cpu_seconds * part.rate.error) ** 2 for part in parts)) / cpu if cpu else 0.0
    serial = rates.coordinator * sum(part.items for part in parts)
    low, high = _bounds(cpu, error)
    names = ("items", "packets", "bytes_read", "bytes_written")
    return {
        **{name: sum(getattr(part, name) for part in parts) for name in names},
        "cpu_seconds": round(cpu, 1),
        "low": round(low, 1),
        "high": round(high, 1),
        "coordinator_seconds": round(serial, 1),
        "workers": workers,
        "elapsed_seconds": round(_elapsed(cpu, serial, workers), 1),
        "elapsed_low": round(_elapsed(low, serial, workers), 1),
        "elapsed_high": round(_elapsed(high, serial, workers), 1),
        "guessed": sorted({part.stage for part in parts if not part.rate.items and part.items}),
    }


def _elapsed(cpu: float, serial: float, workers: int) -> float:
    """Workers and the process that feeds them work at the same time: the slower of the two counts."""
    return max(cpu / workers, serial)


def _bounds(seconds: float, error: float) -> tuple[float, float]:
    """Return the seconds one standard error below and above; a rate may be off by a factor, not below zero."""
    return seconds / (1.0 + error), seconds * (1.0 + error)


def format_plan(payload: Mapping[str, Any]) -> str:
    """Write a plan as text."""
    lines = [
        f"release {payload['release']}: {payload['scope']}; "
        + (f"goes on, {payload['ready']} partitions are ready" if payload["exists"] else "not begun"),
        f"{'stage':8s}{'product':20s}{'items':>8s}{'packets':>10s}{'read MB':>10s}{'write MB':>10s}{'CPU s':>10s}"
        f"  {'from to':20s} rate",
    ]
    for row in payload["parts"]:
        spread = f"{row['low']:g} to {row['high']:g}"
        lines.append(
            f"{row['stage']:8s}{row['product']:20s}{row['items']:8d}{row['packets']:10d}{row['bytes_read'] / 1e6:10.2f}"
            f"{row['bytes_written'] / 1e6:10.2f}{row['cpu_seconds']:10.1f}  {spread:20s} {row['rate']}"
        )
    whole = payload["total"]
    lines.append(
        f"all: {whole['items']} items, {whole['bytes_read'] / 1e6:.1f} MB to read,"
        f" {whole['bytes_written'] / 1e6:.1f} MB to write,"
        f" {whole['cpu_seconds']:.0f} s of CPU ({whole['low']:.0f} to {whole['high']:.0f})"
    )
    lines.append(
        f"with {whole['workers']} workers about {_span(whole['elapsed_seconds'])}"
        f" ({_span(whole['elapsed_low'])} to {_span(whole['elapsed_high'])}), of which the coordinating process"
        f" {_span(whole['coordinator_seconds'])}"
    )
    if whole["free_bytes"] is not None and whole["bytes_written"] > 0.9 * whole["free_bytes"]:
        lines.append(f"WARNING: the disc has room for {whole['free_bytes'] / 1e6:.1f} MB")
    if whole["guessed"]:
        lines.append(f"guessed, since no run has recorded it: {', '.join(whole['guessed'])}")
    for name, reasons in payload.get("left_out", {}).items():
        lines.append(f"not rebuilt: {reasons} {name}")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
