"""Files in: telemetry sorted into packet sets, official level-1 files and ephemeris kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from stixflow import jobs
from stixflow.archive import FileEntry, PacketSet, Quarantined
from stixflow.errors import MissingFile
from stixflow.jobs.frame import SetRecord
from stixflow.jobs.kept import kept_of
from stixflow.stages.official import register_official
from stixflow.stages.run import Run, gathered

TRUTH_NAME = "truth.json"
"""What `simulate` writes beside a delivery: nothing to take in."""
_BLOCK = 1 << 20
Found = TypeVar("Found")
_TELEMETRY, _OFFICIAL, _ANCILLARY = "telemetry", "official", "ancillary"


class _OfFile(Protocol):
    """A job on one file."""

    @property
    def path(self) -> str: ...


def ingest(run: Run, paths: Sequence[Path]) -> None:
    """Sort the packets of new files into packet sets, and keep official level-1 and ephemeris files.

    Files already known are skipped; one whose packet sets are no longer all there is read again, which writes them
    again. A file that is nothing of these is skipped where a folder was walked, and a failure where it was named.

    Raises
    ------
    MissingFile
        If a path does not exist, or there is nothing at all to take in below the paths.
    """
    telemetry: dict[str, str] = {}
    official: dict[str, str] = {}
    ancillary: dict[str, str] = {}
    seen: set[str] = set()
    files = _without_links_out(run, paths, list_files(paths))
    sets = run.archive.catalog.packet_sets()
    have = {_identity(item) for item in sets}
    kept = kept_of(run.archive.root, [item.path for item in sets])
    lost = {item.file_digest for item in sets if item.path not in kept}
    digests = {path: file_digest(path) for path in files}
    ingested = run.archive.catalog.known_files(digests.values()) - lost
    known = 0
    for path, digest in digests.items():
        if digest in seen or digest in ingested:
            run.skip("ingest", path.name, "already ingested: the archive has a file of this content")
            known += 1
            continue
        seen.add(digest)
        {_TELEMETRY: telemetry, _OFFICIAL: official, _ANCILLARY: ancillary}[_kind(path)][str(path)] = digest
    _ingest_ancillary(run, ancillary)
    todo = [jobs.FrameJob(path, run.archive.root, run.clock) for path in telemetry]
    ended = run.fan_out("ingest", jobs.frame, todo, _name)
    for path, framed in _taken(run, ended, paths):
        _register(run, path, telemetry[str(path)], framed, have)
    _ingest_official(run, official, paths)
    if files and not run.counts["files"] and not run.counts["files_restored"] and not known and not run.failed:
        raise MissingFile(
            f"none of the {len(files)} files is telemetry or level 1: {run.skipped[-1]['reason']}",
            expected="SOC XML, binary, hexadecimal text or level-binary FITS; level-1 FITS; L2 ancillary FITS",
            advice="check the folder",
        )


def list_files(paths: Sequence[Path]) -> list[Path]:
    """List the files below the paths, in order, without hidden ones and the truth of simulated deliveries.

    Raises
    ------
    MissingFile
        If a path does not exist, or holds no file.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise MissingFile(f"{path} does not exist", expected="a file or a folder", advice="check the path")
        if not path.is_dir() and not path.is_file():
            raise MissingFile(
                f"{path} is a device or a pipe", expected="a file or a folder", advice="save it to a file"
            )
        below = (
            [p for p in sorted(path.rglob("*")) if p.is_file() and not _is_no_input(p, path)]
            if path.is_dir()
            else [path]
        )
        if not below:
            raise MissingFile(f"the folder {path} is empty", expected="telemetry files", advice="check the path")
        found += below
    return found


def _without_links_out(run: Run, paths: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """Leave out what a link in a delivery leads to outside of it: who delivers may not choose what else is read."""
    places = [path.resolve() for path in paths]
    outside = [
        path for path in files if path not in paths and not any(path.resolve().is_relative_to(one) for one in places)
    ]
    for path in outside:
        run.skip("ingest", path.name, "a link that leads out of the delivery")
    return [path for path in files if path not in outside]


def _is_no_input(path: Path, root: Path) -> bool:
    return path.name == TRUTH_NAME or any(part.startswith(".") for part in path.relative_to(root).parts)


def _name(job: _OfFile) -> str:
    return Path(job.path).name


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            total.update(block)
    return total.hexdigest()


def _kind(path: Path) -> str:
    """Tell FITS by its own header: ancillary, telemetry in level-binary FITS, or an official product."""
    from stixflow.fits.headers import peek

    cards = peek(path)
    if any(part in str(cards.get("FILENAME", "")) for part in ("aux-ephemeris", "asp-ephemeris")):
        return _ANCILLARY
    return _OFFICIAL if cards and cards.get("LEVEL") != "LB" else _TELEMETRY


def _ingest_official(run: Run, official: Mapping[str, str], paths: Sequence[Path]) -> None:
    todo = [jobs.OfficialJob(path, digest, run.archive.root) for path, digest in official.items()]
    ended = run.fan_out("ingest", jobs.keep_official, todo, _name)
    for path, found in _taken(run, ended, paths):
        _count_file(run, path, register_official(run, path, official[str(path)], found))


def _taken(
    run: Run, ended: Iterable[tuple[_OfFile, Found | jobs.Refused]], paths: Sequence[Path]
) -> Iterator[tuple[Path, Found]]:
    """Yield files with what was found in them, those that ended together in one transaction; the rest is refused."""
    for some in gathered(ended):
        with run.archive.catalog.together():
            for job, found in some:
                path = Path(job.path)
                if isinstance(found, jobs.Refused):
                    note = run.fail if path in paths else run.skip
                    note("ingest", path.name, found.reason.removeprefix(f"{path.name} "))
                else:
                    yield path, found


def _ingest_ancillary(run: Run, ancillary: Mapping[str, str]) -> None:
    todo = [jobs.AncillaryJob(path, digest, run.archive.root) for path, digest in ancillary.items()]
    for job, kept in run.fan_out("ingest", jobs.keep_ancillary, todo, _name):
        path = Path(job.path)
        entry = FileEntry(job.digest, path.name, "ephemeris", path.stat().st_size, path=kept.path)
        item = PacketSet("ephemeris", kept.key, job.digest, kept.path, 0, job.digest, {"name": path.name})
        _count_file(run, path, run.archive.catalog.register_file(entry, run_id=run.run_id, packet_sets=[item]))


def _register(run: Run, path: Path, digest: str, framed: jobs.Framed, have: set[tuple[str, str, str]]) -> None:
    sets = [
        PacketSet(s.product, s.key, s.digest, s.path, s.n_packets, digest, {"n_home": s.n_home}) for s in framed.sets
    ]
    # A set that another file brought already, in any container, is all duplicates.
    again = sum(s.n_home for s in framed.sets if _identity(s) in have)
    books = {
        "packets_in": framed.packets_in,
        "used": framed.used - again,
        "duplicates": framed.duplicates + again,
        "rejected": len(framed.rejected),
    }
    is_new = run.archive.catalog.register_file(
        FileEntry(
            digest,
            path.name,
            "telemetry",
            path.stat().st_size,
            books["packets_in"],
            books["used"],
            books["duplicates"],
            books["rejected"],
        ),
        run_id=run.run_id,
        packet_sets=sets,
        quarantined=[Quarantined(path.name, r.reason, r.offset, r.n_bytes, r.path) for r in framed.rejected],
    )
    _count_file(run, path, is_new)
    if is_new:
        run.balance.update(books)
        run.not_decoded.update(
            {s.key: s.n_home for s in framed.sets if s.product == jobs.UNDECODED and _identity(s) not in have}
        )
        have.update(map(_identity, sets))


def _identity(item: PacketSet | SetRecord) -> tuple[str, str, str]:
    return item.product, item.key, item.digest


def _count_file(run: Run, path: Path, is_new: bool) -> None:
    if is_new:
        run.counts["files"] += 1
    else:
        run.counts["files_restored"] += 1
        run.skip("ingest", path.name, "already ingested: what was lost of its packet sets is there again")
