"""Which official files a partition is made of, and what the books say of them.

Packets are the truth: a partition of which the archive has packets is made of these alone, all others are made of
official files. Of several files of one day, request or calibration run, level 1 goes before L1A, and the last version
before all others; what belongs to a day and stands in the file of its neighbour counts there where it lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from stixflow import jobs
from stixflow.archive import FileEntry, PacketSet, Partition
from stixflow.cubes.model import PRODUCTS
from stixflow.stages.run import Run

_KIND = "level-1"
"""Kind of the official files among the files of the catalog."""

_LEVELS = ("L1A", "L1")


def is_official(item: PacketSet) -> bool:
    """Tell an official file of a partition from a packet set."""
    return "level" in item.attrs


def names_of(items: Iterable[PacketSet]) -> tuple[str, ...]:
    """Names of official files; none of packet sets."""
    return tuple(str(item.attrs["name"]) for item in items if is_official(item))


def choose(product: str, items: Sequence[PacketSet]) -> list[PacketSet]:
    """Choose of what a partition is made: its packets, or else the official files that are not superseded.

    Returns
    -------
    Files in order: where two hold the same time, the first of them counts.
    """
    packets = [item for item in items if not is_official(item)]
    if packets:
        return packets
    ranked = sorted(items, key=_rank, reverse=True)
    return _of_day(ranked) if PRODUCTS[product].partition == "day" else _of_boxes(ranked)


def _rank(item: PacketSet) -> tuple[Any, ...]:
    """What decides between files of the same: level, version, when they were made, their name."""
    level = str(item.attrs.get("level"))
    known = _LEVELS.index(level) if level in _LEVELS else -1
    return known, _number(item, "version"), str(item.attrs.get("made")), str(item.attrs.get("name")), item.digest


def _of_day(ranked: Sequence[PacketSet]) -> list[PacketSet]:
    """Take the best file of the day and of each neighbour that reaches into it; pieces of L1A where it has none."""
    best: dict[str, PacketSet] = {}
    for item in ranked:
        if item.attrs["level"] == "L1":
            best.setdefault(str(item.attrs["home"]), item)
    own = [item for home, item in best.items() if home == item.key]
    neighbours = [item for home, item in best.items() if home != item.key]
    pieces = [] if own else [item for item in ranked if item.attrs["level"] != "L1"]
    return [*own, *neighbours, *pieces]


def _of_boxes(ranked: Sequence[PacketSet]) -> list[PacketSet]:
    """Take the best file of each box of a request."""
    boxes = _number(ranked[0], "boxes")
    best: dict[int, PacketSet] = {}
    for item in ranked:
        if _number(item, "boxes") == boxes:
            best.setdefault(_number(item, "box"), item)
    return [best[box] for box in sorted(best)]


def _number(item: PacketSet, name: str) -> int:
    return int(str(item.attrs.get(name, 0)))


def register_official(run: Run, path: Path, digest: str, found: jobs.OfficialFile) -> bool:
    """Record an official file and the partitions it belongs to; return False if its content was known."""
    sets: dict[tuple[str, str], PacketSet] = {}
    for part in found.parts:  # two calibration runs of one start and duration are one partition
        sets[part.product, part.key] = PacketSet(part.product, part.key, digest, found.path, 0, digest, part.attrs)
    attrs = {"product": found.parts[0].product, "bins": found.bins, "counts": found.counts}
    entry = FileEntry(digest, path.name, _KIND, path.stat().st_size, path=found.path, attrs=attrs)
    is_new = run.archive.catalog.register_file(entry, run_id=run.run_id, packet_sets=sets.values())
    if is_new:
        run.official.update(files=1, bins=found.bins, counts=found.counts)
    return is_new


def count_built(run: Run, items: Sequence[PacketSet], chosen: Sequence[PacketSet], books: jobs.OfficialBooks) -> None:
    """Add to the books of a run what became of the official files of a partition that was just published."""
    of_files = [item for item in items if is_official(item)]
    if of_files:
        held = sum(_number(item, "bins") for item in of_files)
        taken = sum(_number(item, "bins") for item in chosen if is_official(item))
        run.official.update(
            used=books.used_bins, repeated=taken - books.used_bins, replaced=held - taken, counts_used=books.used_counts
        )


def shrinks_for(before: Partition | None, job: jobs.BuildJob) -> str:
    """Why a partition may have fewer bins than before: a later version of its official file has fewer."""
    if before is None or not job.official or before.attrs.get("made_from") is None:
        return ""
    return f"made of {', '.join(job.official)}, before of {', '.join(map(str, sources_of(before)))}"


def file_has_more(before: Partition | None, job: jobs.BuildJob, built: jobs.Built) -> str:
    """Why a partition that its packets would shrink stays made of an official file; empty if it is not so."""
    if before is None or job.official or before.attrs.get("made_from") is None:
        return ""
    if built.store.n_time >= before.n_time:
        return ""
    files = ", ".join(map(str, sources_of(before)))
    return (
        f"its packets hold {built.store.n_time} bins so far, {files} {before.n_time}: left as it is until more of its "
        "packets come"
    )


def sources_of(partition: Partition) -> Sequence[Any]:
    """Names of the official files that a partition was made of."""
    found = partition.attrs.get("source_files")
    return found if isinstance(found, list) else ["an official file"]
