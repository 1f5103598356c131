"""The catalog: what was read, what was made of it, and which of it readers see.

Only the coordinating process writes here; workers return records. A partition is staged, then published by moving one
pointer in one transaction, if nobody else has moved it since; the same move backwards rolls back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import date
from types import EllipsisType
from typing import TYPE_CHECKING, Any

import numpy as np
import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.tables import now_ns, reading, writing
from stixflow.archive.values import from_json, from_ns, number, rows_of, take, to_json, to_ns
from stixflow.cubes.model import DATA_MODEL_VERSION
from stixflow.errors import BalanceError, NotFound, PublishConflict, SchemaError, UsageError

if TYPE_CHECKING:
    import pandas as pd

    from stixflow.cubes.store import StoreRecord


@dataclass(frozen=True, slots=True)
class FileEntry:
    """An input file and the balance of its packets: ``packets_in = used + duplicates + rejected``."""

    digest: str
    name: str
    kind: str
    n_bytes: int
    packets_in: int = 0
    used: int = 0
    duplicates: int = 0
    rejected: int = 0
    path: str | None = None
    """Where the archive keeps the file, below its root; None where it does not."""
    attrs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PacketSet:
    """The packets of one file for one partition, kept below the root at `path`."""

    product: str
    key: str
    digest: str
    path: str
    n_packets: int
    file_digest: str
    attrs: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """Bytes that were not used, why, and where they are kept."""

    file: str
    reason: str
    offset: int | None = None
    n_bytes: int | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Partition:
    """One store and what the catalog knows of it; `id`, `state` and `created` are the catalog's."""

    run_id: str
    product: str
    key: str
    day: date
    path: str
    """Of the store, below the root of the archive."""
    digest: str
    input_digest: str
    code_version: str
    n_time: int
    boxes: int
    counts_sum: int
    n_bytes: int
    start: np.datetime64
    stop: np.datetime64
    structure: str = ""
    axes: str = ""
    request_id: int | None = None
    seq_control: int | None = None
    complete: bool = True
    missing: str = ""
    shrink_reason: str = ""
    data_model_version: int = DATA_MODEL_VERSION
    attrs: Mapping[str, object] = field(default_factory=dict)
    id: int = 0
    state: str = "new"
    replaces: int | None = None
    created: np.datetime64 = field(default_factory=lambda: np.datetime64("NaT", "ns"))
    collected: int | None = None
    """When its store was removed as garbage, ns since 1970; None while it is there."""


def draft_partition(
    record: StoreRecord,
    *,
    path: str,
    run_id: str,
    product: str,
    key: str,
    day: date,
    input_digest: str,
    code_version: str,
    complete: bool = True,
    missing: str = "",
    attrs: Mapping[str, object] | None = None,
) -> Partition:
    """Return what to stage for a store that was just written at `path` below the root.

    Parameters
    ----------
    attrs
        What the catalog shall keep beside its own columns; by default the global attributes of the store.
    """
    copied: dict[str, Any] = {name: getattr(record, name) for name in _FROM_RECORD}
    copied |= {name: record.attrs.get(name) for name in ("request_id", "seq_control")}
    return Partition(
        run_id=run_id,
        product=product,
        key=key,
        day=day,
        path=path,
        input_digest=input_digest,
        code_version=code_version,
        complete=complete,
        missing=missing,
        attrs=record.attrs if attrs is None else attrs,
        **copied,
    )


_FROM_RECORD = ("digest", "n_time", "boxes", "counts_sum", "n_bytes", "start", "stop", "structure", "axes")


class Catalog:
    """The tables behind an archive.

    Parameters
    ----------
    url
        A SQLAlchemy URL, as ``sqlite:////data/stix/catalog.sqlite``; tables that are missing are made.
    release
        What `partitions`, `coverage`, `flares` and `images` show: a release, or None for what is published now.

    Raises
    ------
    NotFound
        If there is no such release; the message names those there are.
    """

    def __init__(self, url: str, *, release: str | None = None) -> None:
        self._engine = tables.open_database(url)
        self.release = release
        if release is not None:
            self._check_release(release)
        self._shown = tables.current if release is None else _pinned(release)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    # Runs -------------------------------------------------------------------------------------------------------------

    def begin_run(self, run_id: str, command: str, *, code_version: str) -> None:
        """Record that a command has started."""
        values = {"run_id": run_id, "command": command, "code_version": code_version}
        with writing(self._engine) as connection:
            connection.execute(tables.run.insert().values(**values, state="running", started=now_ns(), summary="{}"))

    def finish_run(self, run_id: str, *, state: str = "done", summary: Mapping[str, object] | None = None) -> None:
        """Record how a run ended: ``done`` or ``failed``, and its totals."""
        _check_choice("state", state, ("done", "failed"))
        change = tables.run.update().where(tables.run.c.run_id == run_id)
        with writing(self._engine) as connection:
            done = connection.execute(change.values(state=state, finished=now_ns(), summary=to_json(summary or {})))
        if not done.rowcount:
            raise NotFound(f"there is no run {run_id}", advice="begin it first")

    def runs(self) -> list[dict[str, Any]]:
        """Return every run, the latest first."""
        query = sa.select(tables.run).order_by(tables.run.c.started.desc(), tables.run.c.run_id.desc())
        return [_with_times(row, "started", "finished", summary=True) for row in self._rows(query)]

    # Inputs -----------------------------------------------------------------------------------------------------------

    def knows_file(self, digest: str) -> bool:
        """Tell whether a file of this content has been ingested."""
        return bool(self._rows(sa.select(tables.file.c.digest).where(tables.file.c.digest == digest)))

    def register_file(
        self,
        entry: FileEntry,
        *,
        run_id: str,
        packet_sets: Iterable[PacketSet] = (),
        quarantined: Iterable[Quarantined] = (),
    ) -> bool:
        """Record an input file with everything that came out of it, in one transaction.

        Returns
        -------
        False if a file of this content is already there; nothing is then recorded.

        Raises
        ------
        BalanceError
            If the packets of the file do not balance.
        """
        if entry.packets_in != entry.used + entry.duplicates + entry.rejected:
            raise BalanceError(
                f"{entry.name}: {entry.packets_in} packets read, {entry.used} used, {entry.duplicates} duplicates, "
                f"{entry.rejected} rejected",
                expected="read = used + duplicates + rejected",
                advice="report this with the file: a packet was lost or counted twice",
            )
        values = _columns(entry) | {"attrs": to_json(entry.attrs), "run_id": run_id, "ingested": now_ns()}
        with writing(self._engine) as connection:
            known = sa.select(tables.file.c.digest).where(tables.file.c.digest == entry.digest)
            if connection.execute(known).first():
                return False
            connection.execute(tables.file.insert().values(**values))
            _add_packet_sets(connection, packet_sets, run_id)
            _add_quarantined(connection, quarantined, run_id)
        return True

    def files(self) -> list[dict[str, Any]]:
        """Return every input file with its balance, in the order of ingestion."""
        query = sa.select(tables.file).order_by(tables.file.c.ingested, tables.file.c.digest)
        return [_with_times(row, "ingested", attrs=True) for row in self._rows(query)]

    def packet_sets(self, product: str | None = None, key: str | None = None) -> list[PacketSet]:
        """Return the packet sets of a partition, or of all of them, in a fixed order."""
        table = tables.packet_set
        query = sa.select(table).order_by(table.c.product, table.c.key, table.c.digest)
        wanted = _where(query, table, product=product, key=key)
        names = [item.name for item in fields(PacketSet)]
        return [
            PacketSet(**{name: row[name] for name in names} | {"attrs": from_json(row["attrs"])})
            for row in self._rows(wanted)
        ]

    def quarantine(self, quarantined: Iterable[Quarantined], *, run_id: str) -> None:
        """Record bytes that could not be used."""
        with writing(self._engine) as connection:
            _add_quarantined(connection, quarantined, run_id)

    def quarantined(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Return what is in quarantine, of one run or of all."""
        query = _where(sa.select(tables.quarantine).order_by(tables.quarantine.c.id), tables.quarantine, run_id=run_id)
        return [_with_times(row, "created") for row in self._rows(query)]

    # Partitions -------------------------------------------------------------------------------------------------------

    def stage(self, partition: Partition) -> int:
        """Record a written store that readers do not see yet, and return its id; the same store again keeps its id."""
        values = _columns(partition)
        del values["id"]
        values |= {
            "state": "staged",
            "day": partition.day.isoformat(),
            "start": to_ns(partition.start),
            "stop": to_ns(partition.stop),
            "created": now_ns(),
            "attrs": to_json(partition.attrs),
        }
        table = tables.partition
        with writing(self._engine) as connection:
            same = sa.select(table.c.id, table.c.digest).where(table.c.path == partition.path)
            found = connection.execute(same).first()
            if found is None:
                values["replaces"] = _pointer(connection, partition.product, partition.key)
                return int(connection.execute(table.insert().values(**values).returning(table.c.id)).scalar_one())
        if found.digest != partition.digest:
            raise UsageError(
                f"{partition.path} is staged with other content",
                expected="a new run id",
                advice="stage under a new one",
            )
        return int(found.id)

    def publish(
        self,
        *partition_ids: int,
        expected: int | EllipsisType | None = ...,
        shrink_reason: str = "",
    ) -> None:
        """Show staged partitions to readers: all of them, in one transaction, or none.

        Parameters
        ----------
        expected
            Id of the partition that the new one replaces (None: there is none); by default what was current when it was
            staged. Only with a single partition.
        shrink_reason
            Why a partition may hold fewer time bins than the one it replaces.

        Raises
        ------
        PublishConflict
            If another partition has been published since.
        BalanceError
            If a partition shrinks without a reason.
        SchemaError
            If its variables are not those of the published one, at the same data model version.
        """
        if expected is not ... and len(partition_ids) != 1:
            raise UsageError("expected belongs to one partition", expected="one id", advice="publish them one by one")
        with writing(self._engine) as connection:
            for partition_id in partition_ids:
                new = _partition(connection, partition_id)
                wanted = new.replaces if expected is ... else expected
                _check_publishable(connection, new, wanted, shrink_reason)
                _flip(connection, new, wanted)
                if shrink_reason:
                    _set(connection, new.id, shrink_reason=shrink_reason)

    def fail(self, partition_id: int) -> None:
        """Mark a staged partition as not to be published."""
        with writing(self._engine) as connection:
            if _partition(connection, partition_id).state != "staged":
                raise UsageError(f"partition {partition_id} is not staged", advice="roll back what is published")
            _set(connection, partition_id, state="failed")

    def rollback(self, product: str, key: str) -> Partition:
        """Show again what the current partition has replaced, and return it."""
        with writing(self._engine) as connection:
            now = _current(connection, product, key)
            if now.replaces is None:
                raise NotFound(
                    f"{product} {key} was published once",
                    expected="an earlier run of it",
                    advice="reprocess it instead",
                )
            earlier = _partition(connection, now.replaces)
            if earlier.collected is not None:
                raise NotFound(
                    f"the run before the current one of {product} {key} was collected as garbage",
                    expected="a run whose store is kept",
                    advice="reprocess it instead",
                )
            _flip(connection, earlier, now.id, keep_replaces=True)
            return replace(earlier, state="published")

    def partition(self, partition_id: int) -> Partition:
        """Return one partition, whatever its state."""
        with reading(self._engine) as connection:
            return _partition(connection, partition_id)

    def current(self, product: str, key: str) -> Partition | None:
        """Return the partition that readers see, or None."""
        found = self.partitions(product, key=key)
        return found[0] if found else None

    def partitions(
        self,
        product: str | Sequence[str] | None = None,
        *,
        key: str | None = None,
        start: object = None,
        stop: object = None,
        request_id: int | None = None,
    ) -> list[Partition]:
        """Return the current partitions that overlap ``[start, stop)``, all resolved at one moment, by start."""
        table, shown = tables.partition, self._shown
        query = sa.select(table).join(shown, shown.c.partition_id == table.c.id)
        query = _where(query, table, key=key, request_id=request_id).order_by(
            table.c.start, table.c.product, table.c.key
        )
        if product is not None:
            query = query.where(table.c.product.in_([product] if isinstance(product, str) else list(product)))
        if start is not None:
            query = query.where(shown.c.stop > to_ns(start))
        if stop is not None:
            query = query.where(shown.c.start < to_ns(stop))
        return [_read_partition(row) for row in self._rows(query)]

    def coverage(self) -> list[dict[str, Any]]:
        """Return for each product how many partitions are published, their span, bytes, time bins and gaps in them."""
        table = tables.partition
        query = (
            sa.select(
                table.c.product,
                sa.func.count().label("partitions"),
                sa.func.min(table.c.start).label("start"),
                sa.func.max(table.c.stop).label("stop"),
                sa.func.sum(table.c.n_bytes).label("n_bytes"),
                sa.func.sum(table.c.n_time).label("n_time"),
                sa.func.sum(sa.case((table.c.complete, 0), else_=1)).label("incomplete"),
            )
            .join(self._shown, self._shown.c.partition_id == table.c.id)
            .group_by(table.c.product)
            .order_by(table.c.product)
        )
        return [_with_times(row, "start", "stop") for row in self._rows(query)]

    def history(self, product: str, key: str) -> list[Partition]:
        """Return every partition that was ever staged for a key, the oldest first."""
        table = tables.partition
        query = _where(sa.select(table), table, product=product, key=key).order_by(table.c.id)
        return [_read_partition(row) for row in self._rows(query)]

    def rolled_back(self) -> set[tuple[str, str, str]]:
        """Return product, key and input digest of the partitions that were rolled back from."""
        table, pointer = tables.partition, tables.current
        mine = sa.and_(pointer.c.product == table.c.product, pointer.c.key == table.c.key)
        query = (
            sa.select(table.c.product, table.c.key, table.c.input_digest)
            .join(pointer, mine)
            .where(table.c.id > pointer.c.partition_id, table.c.state == "superseded")
        )
        return {(row["product"], row["key"], row["input_digest"]) for row in self._rows(query)}

    # Flares and images ------------------------------------------------------------------------------------------------

    def replace_flares(self, partition_id: int, flares: pd.DataFrame | Iterable[Mapping[str, object]]) -> None:
        """Make these the flares found in a day's light curve.

        Readers see them while that partition is current, so flares of a staged partition appear with it, in the same
        transaction, and go with it when it is rolled back.

        Parameters
        ----------
        flares
            One row per flare with `flare_id`, `start`, `peak`, `stop`, `peak_counts`; any other column is kept too.
        """
        rows = [_flare_row(partition_id, row) for row in rows_of(flares)]
        with writing(self._engine) as connection:
            _partition(connection, partition_id)
            connection.execute(tables.flare.delete().where(tables.flare.c.partition_id == partition_id))
            if rows:
                connection.execute(tables.flare.insert(), rows)

    def flares(self, start: object = None, stop: object = None, *, flare_id: object = None) -> list[dict[str, Any]]:
        """Return the flares whose peak lies in ``[start, stop)``, by peak; times are pandas Timestamps."""
        table = tables.flare
        if self.release is not None:
            kept = [row for row in self._kept("flare", "peak", start, stop) if flare_id in (None, row["flare_id"])]
            return sorted(kept, key=lambda row: (row["peak"], row["flare_id"]))
        query = (
            sa.select(
                table,
                tables.partition.c.key.label("day"),
                tables.partition.c.run_id,
                tables.location.c.attrs.label("location"),
            )
            .join(tables.current, tables.current.c.partition_id == table.c.partition_id)
            .join(tables.partition, tables.partition.c.id == table.c.partition_id)
            .join(tables.location, tables.location.c.flare_id == table.c.flare_id, isouter=True)
            .order_by(table.c.peak, table.c.flare_id)
        )
        query = _where(query, table, flare_id=None if flare_id is None else str(flare_id))
        query = _between(query, table.c.peak, start, stop)
        return [_read_flare(row) for row in self._rows(query)]

    def locate_flare(self, flare_id: object, location: Mapping[str, object]) -> None:
        """Add where a flare is to what `flares` returns for it: columns as `x_hpc`, `y_hpc`.

        The location stays with the flare when its day is published again; columns of the same name are replaced.
        """
        table, name = tables.location, str(flare_id)
        with writing(self._engine) as connection:
            found = connection.execute(sa.select(table.c.attrs).where(table.c.flare_id == name)).scalar()
            if found is None:
                connection.execute(table.insert().values(flare_id=name, attrs=to_json(location)))
            else:
                attrs = to_json(from_json(found) | dict(location))
                connection.execute(table.update().where(table.c.flare_id == name).values(attrs=attrs))

    def replace_images(
        self, flare_id: str, images: pd.DataFrame | Iterable[Mapping[str, object]], *, run_id: str
    ) -> None:
        """Make these the images of a flare, in place of all earlier ones; columns as for `add_images`."""
        rows = [_image_row(row, run_id) for row in rows_of(images)]
        with writing(self._engine) as connection:
            connection.execute(tables.image.delete().where(tables.image.c.flare_id == flare_id))
            if rows:
                connection.execute(tables.image.insert(), rows)

    def add_images(self, images: pd.DataFrame | Iterable[Mapping[str, object]], *, run_id: str) -> None:
        """Record images; one with a known `image_id` takes the place of the earlier one.

        Parameters
        ----------
        images
            One row per image with `image_id`, `method`, `energy_low`, `energy_high` (keV), `start`, `stop`, `path`
            (below the root), `digest`, and where known `flare_id`, `x_hpc`, `y_hpc` (arcsec); any other column is kept.
        """
        rows = [_image_row(row, run_id) for row in rows_of(images)]
        names = [row["image_id"] for row in rows]
        with writing(self._engine) as connection:
            for first in range(0, len(names), 500):
                known = tables.image.c.image_id.in_(names[first : first + 500])
                connection.execute(tables.image.delete().where(known))
            if rows:
                connection.execute(tables.image.insert(), rows)

    def images(
        self,
        flare_id: object = None,
        start: object = None,
        stop: object = None,
        *,
        image_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Return images of a flare, or whose interval starts in ``[start, stop)``, by start."""
        table = tables.image
        if self.release is not None:
            kept = [
                row
                for row in self._kept("image", "start", start, stop)
                if flare_id in (None, row["flare_id"]) and image_id in (None, row["image_id"])
            ]
            return sorted(kept, key=lambda row: (row["start"], row["image_id"]))
        query = sa.select(table).order_by(table.c.start, table.c.image_id)
        query = _where(query, table, flare_id=None if flare_id is None else str(flare_id), image_id=image_id)
        return [_read_image(row) for row in self._rows(_between(query, table.c.start, start, stop))]

    def totals(self) -> dict[str, int]:
        """Return how many files, quarantined pieces, published flares and images there are."""
        shown = sa.select(tables.flare.c.id).join(
            self._shown, self._shown.c.partition_id == tables.flare.c.partition_id
        )
        counted = {"files": tables.file, "quarantined": tables.quarantine, "images": tables.image}
        selected = {name: sa.select(sa.func.count()).select_from(table) for name, table in counted.items()}
        selected["flares"] = sa.select(sa.func.count()).select_from(shown.subquery())
        query = sa.select(*(part.scalar_subquery().label(name) for name, part in selected.items()))
        found = self._rows(query)[0]
        return found if self.release is None else found | {kind: len(self._kept(kind[:-1])) for kind in _KEPT}

    # What stages have done --------------------------------------------------------------------------------------------

    def mark_done(self, stage: str, items: Mapping[str, str], *, run_id: str) -> None:
        """Record that a stage has done items, each with the digest of what it was made from."""
        table = tables.done
        rows = [
            {"stage": stage, "item": item, "input_digest": digest, "run_id": run_id, "created": now_ns()}
            for item, digest in items.items()
        ]
        with writing(self._engine) as connection:
            for row in rows:
                same = sa.and_(table.c.stage == stage, table.c.item == row["item"])
                if not connection.execute(table.update().where(same).values(**row)).rowcount:
                    connection.execute(table.insert().values(**row))

    def done(self, stage: str) -> dict[str, str]:
        """Return what a stage has done: the digest of its inputs by item."""
        table = tables.done
        query = sa.select(table.c.item, table.c.input_digest).where(table.c.stage == stage)
        return {row["item"]: row["input_digest"] for row in self._rows(query)}

    def _check_release(self, name: str) -> None:
        known = [row["name"] for row in self._rows(sa.select(tables.release.c.name).order_by(tables.release.c.name))]
        if name not in known:
            raise NotFound(
                f"there is no release {name!r}",
                expected=f"one of {', '.join(known)}" if known else "None: no release was made yet",
                advice="correct the name, or see `stixflow release list`",
            )

    def _kept(
        self, kind: str, column: str = "start", start: object = None, stop: object = None
    ) -> list[dict[str, Any]]:
        """Return the flares or images of the release of which a time lies in ``[start, stop)``."""
        table = tables.release_row
        query = _where(sa.select(table.c.attrs), table, release=self.release, kind=kind)
        rows = [from_json(row["attrs"]) for row in self._rows(query)]
        first, last = (None if bound is None else to_ns(bound) for bound in (start, stop))
        return [
            row
            for row in rows
            if (first is None or to_ns(row[column]) >= first) and (last is None or to_ns(row[column]) < last)
        ]

    def _rows(self, query: sa.Select[Any]) -> list[dict[str, Any]]:
        with reading(self._engine) as connection:
            return [dict(row) for row in connection.execute(query).mappings()]


_KEPT = ("flares", "images")
"""Tables of which a release keeps the rows."""


def _pinned(release: str) -> Any:
    """Return, in place of the table `current`, the pointers of a release."""
    table, mine = tables.partition, tables.release_partition
    query = sa.select(mine.c.product, mine.c.key, mine.c.partition_id, table.c.start, table.c.stop)
    return query.join(table, table.c.id == mine.c.partition_id).where(mine.c.release == release).subquery()


# Pieces of queries ----------------------------------------------------------------------------------------------------


def _where(query: sa.Select[Any], table: sa.Table, **values: object) -> sa.Select[Any]:
    given = {name: value for name, value in values.items() if value is not None}
    return query.where(*(table.c[name] == value for name, value in given.items()))


def _between(query: sa.Select[Any], column: sa.Column[Any], start: object, stop: object) -> sa.Select[Any]:
    if start is not None:
        query = query.where(column >= to_ns(start))
    if stop is not None:
        query = query.where(column < to_ns(stop))
    return query


def _columns(value: Any) -> dict[str, Any]:
    return {item.name: getattr(value, item.name) for item in fields(value)}


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", expected=" or ".join(choices), advice="correct it")


def _with_times(row: dict[str, Any], *names: str, **documents: bool) -> dict[str, Any]:
    times = {name: None if row[name] is None else from_ns(row[name]) for name in names}
    return row | times | {name: from_json(row[name]) for name in documents}


def _add_packet_sets(connection: sa.Connection, packet_sets: Iterable[PacketSet], run_id: str) -> None:
    table = tables.packet_set
    for item in packet_sets:
        same = _where(sa.select(table.c.id), table, product=item.product, key=item.key, digest=item.digest)
        if connection.execute(same).first() is None:
            values = _columns(item) | {"attrs": to_json(item.attrs), "run_id": run_id}
            connection.execute(table.insert().values(**values))


def _add_quarantined(connection: sa.Connection, quarantined: Iterable[Quarantined], run_id: str) -> None:
    rows = [_columns(item) | {"run_id": run_id, "created": now_ns()} for item in quarantined]
    if rows:
        connection.execute(tables.quarantine.insert(), rows)


# Publishing -----------------------------------------------------------------------------------------------------------


def _partition(connection: sa.Connection, partition_id: int) -> Partition:
    query = sa.select(tables.partition).where(tables.partition.c.id == partition_id)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NotFound(f"there is no partition {partition_id}", advice="stage it first")
    return _read_partition(dict(row))


def _read_partition(row: dict[str, Any]) -> Partition:
    values = {item.name: row[item.name] for item in fields(Partition)}
    times = {name: from_ns(row[name]) for name in ("start", "stop", "created")}
    return Partition(**values | times | {"day": date.fromisoformat(row["day"]), "attrs": from_json(row["attrs"])})


def _pointer(connection: sa.Connection, product: str, key: str) -> int | None:
    query = _where(sa.select(tables.current.c.partition_id), tables.current, product=product, key=key)
    found: int | None = connection.execute(query).scalar()
    return found


def _current(connection: sa.Connection, product: str, key: str) -> Partition:
    found = _pointer(connection, product, key)
    if found is None:
        raise NotFound(f"nothing is published for {product} {key}", advice="see what is with `stixflow status`")
    return _partition(connection, found)


def _check_publishable(connection: sa.Connection, new: Partition, expected: int | None, shrink_reason: str) -> None:
    if new.state != "staged":
        raise UsageError(f"partition {new.id} is {new.state}", expected="a staged one", advice="stage a new run")
    if expected is None:
        return
    old = _partition(connection, expected)
    if new.n_time < old.n_time and not shrink_reason:
        raise BalanceError(
            f"{new.product} {new.key} would shrink from {old.n_time} to {new.n_time} time bins",
            expected="at least as many as the published run",
            advice="find what was lost, or publish with --allow-shrink and the reason",
        )
    if new.structure != old.structure and new.data_model_version == old.data_model_version:
        raise SchemaError(
            f"{new.product} {new.key} has other variables or dimensions than the published run",
            expected=f"the structure of data model {old.data_model_version}",
            advice="raise DATA_MODEL_VERSION with the change that made it",
        )


def _flip(connection: sa.Connection, new: Partition, expected: int | None, *, keep_replaces: bool = False) -> None:
    """Move the pointer of a key from `expected` to `new`, or raise if it points elsewhere."""
    table, mine = tables.current, {"product": new.product, "key": new.key}
    span = {"partition_id": new.id, "start": to_ns(new.start), "stop": to_ns(new.stop)}
    if expected is None and _pointer(connection, new.product, new.key) is None:
        connection.execute(table.insert().values(**mine, **span, revision=1))
    else:
        where = sa.and_(table.c.product == new.product, table.c.key == new.key, table.c.partition_id == expected)
        change = table.update().where(where).values(**span, revision=table.c.revision + 1)
        if expected is None or not connection.execute(change).rowcount:
            raise PublishConflict(
                f"{new.product} {new.key} now has the partition {_pointer(connection, **mine)}",
                expected=f"partition {expected}, as when this run began",
                advice="run again: it starts from what is published now",
            )
        _set(connection, expected, state="superseded")
    _set(connection, new.id, state="published", **({} if keep_replaces else {"replaces": expected}))


def _set(connection: sa.Connection, partition_id: int, **values: object) -> None:
    connection.execute(tables.partition.update().where(tables.partition.c.id == partition_id).values(**values))


# Flares and images ----------------------------------------------------------------------------------------------------


def _flare_row(partition_id: int, row: dict[str, Any]) -> dict[str, Any]:
    flare_id, start, peak, stop, peak_counts = take(row, "flare_id", "start", "peak", "stop", "peak_counts")
    return {
        "partition_id": partition_id,
        "flare_id": str(flare_id),
        "start": to_ns(start),
        "peak": to_ns(peak),
        "stop": to_ns(stop),
        "peak_counts": number(peak_counts),
        "attrs": to_json(row),
    }


def _read_flare(row: dict[str, Any]) -> dict[str, Any]:
    del row["id"], row["partition_id"]
    attrs = from_json(row.pop("attrs"))
    location = from_json(row.pop("location") or "{}")
    return attrs | location | _with_times(row, "start", "peak", "stop")


def _image_row(row: dict[str, Any], run_id: str) -> dict[str, Any]:
    image_id, method, path, digest = take(row, "image_id", "method", "path", "digest")
    low, high, start, stop = take(row, "energy_low", "energy_high", "start", "stop")
    flare_id = row.pop("flare_id", None)
    return {
        "image_id": str(image_id),
        "flare_id": None if flare_id is None else str(flare_id),
        "method": str(method),
        "energy_low": float(low),
        "energy_high": float(high),
        "start": to_ns(start),
        "stop": to_ns(stop),
        "path": str(path),
        "digest": str(digest),
        "x_hpc": number(row.pop("x_hpc", None)),
        "y_hpc": number(row.pop("y_hpc", None)),
        "run_id": run_id,
        "created": now_ns(),
        "attrs": to_json(row),
    }


def _read_image(row: dict[str, Any]) -> dict[str, Any]:
    del row["id"]
    attrs = from_json(row.pop("attrs"))
    return attrs | _with_times(row, "start", "stop", "created")
