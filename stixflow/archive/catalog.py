"""The catalog: what was read, what was made of it, and which of it readers see.

Only the coordinating process writes here; workers return records. A partition is staged, then published by moving one
pointer in one transaction, if nobody else has moved it since; the same move backwards rolls back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from types import EllipsisType
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.entries import Partition
from stixflow.archive.findings import Findings
from stixflow.archive.inputs import Inputs
from stixflow.archive.layout import check_name, check_path
from stixflow.archive.migrations import open_database
from stixflow.archive.publishing import (
    Key,
    Move,
    check_moves,
    check_publishable,
    check_staged,
    current,
    flip,
    partition_of,
    point,
    pointers,
    read_partition,
    read_partitions,
    set_values,
)
from stixflow.archive.queries import chunks, columns, where, with_times
from stixflow.archive.runs import Runs
from stixflow.archive.transactions import reading, together, writing
from stixflow.archive.values import to_json, to_ns
from stixflow.errors import NotFound, UsageError, masked


class Catalog(Runs, Inputs, Findings):
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
        self.engine = open_database(url)
        self.release = release
        if release is not None:
            self._check_release(release)
        self._shown = tables.current if release is None else _pinned(release)

    @property
    def url(self) -> str:
        """Where its database is, without a password: for people, not for opening it again."""
        return masked(self.engine.url.render_as_string(hide_password=True))

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def together(self) -> AbstractContextManager[None]:
        """Make what is written in a ``with`` block one transaction: see `transactions.together`."""
        return together(self.engine)

    def stage(self, partition: Partition) -> int:
        """Record a written store that readers do not see yet, and return its id; the same store again keeps its id."""
        return self.stage_all([partition])[0]

    def stage_all(self, partitions: Sequence[Partition]) -> list[int]:
        """Record written stores as `stage` does, all or none, in a few statements; return their ids in order."""
        now = tables.now_ns()
        rows = [_row_of(partition, now) for partition in partitions]
        with self._writing() as connection:
            known = _known_paths(connection, [row["path"] for row in rows])
            for row in rows:
                if known.get(row["path"], (0, row["digest"]))[1] != row["digest"]:
                    raise UsageError(
                        f"{row['path']} is staged with other content",
                        expected="a new run id",
                        advice="stage under a new one",
                    )
            fresh = [row for row in rows if row["path"] not in known]
            shown = pointers(connection, [(row["product"], row["key"]) for row in fresh], self.release)
            if fresh:
                each = [row | {"replaces": shown.get((row["product"], row["key"]))} for row in fresh]
                connection.execute(tables.partition.insert(), each)
                known = _known_paths(connection, [row["path"] for row in rows])
        return [known[row["path"]][0] for row in rows]

    def publish(
        self,
        *partition_ids: int,
        expected: int | EllipsisType | None = ...,
        shrink_reason: str | Mapping[int, str] = "",
    ) -> None:
        """Show staged partitions to readers: all of them, in one transaction, or none.

        In the catalog of an open release they become part of that: readers see them when it is switched to, and what
        guards readers here (`BalanceError`, `SchemaError`) is then part of its validation.

        Parameters
        ----------
        expected
            Id of the partition that the new one replaces (None: there is none); by default what was current when it was
            staged. Only with a single partition.
        shrink_reason
            Why partitions may hold fewer time bins than those that they replace: one reason for all, or by id.

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
        if isinstance(shrink_reason, str):
            shrink_reason = dict.fromkeys(partition_ids, shrink_reason)
        with self._writing() as connection:
            new = read_partitions(connection, partition_ids)
            moves = [(new[item], new[item].replaces if expected is ... else expected) for item in partition_ids]
            self._check(connection, moves, shrink_reason)
            check_moves(connection, moves, self.release)
            if self.release is None:
                flip(connection, moves)
            else:
                point(connection, self.release, moves)
            for partition_id, reason in shrink_reason.items():
                if reason:
                    set_values(connection, [partition_id], shrink_reason=reason)

    def _check(self, connection: sa.Connection, moves: Sequence[Move], reasons: Mapping[int, str]) -> None:
        if self.release is not None:
            for new, _ in moves:
                check_staged(new)
            return
        old = read_partitions(connection, [expected for _, expected in moves if expected is not None])
        for new, expected in moves:
            check_publishable(new, None if expected is None else old[expected], reasons.get(new.id, ""))

    def fail(self, partition_id: int) -> None:
        """Mark a staged partition as not to be published."""
        with writing(self.engine) as connection:
            if read_partition(connection, partition_id).state != "staged":
                raise UsageError(f"partition {partition_id} is not staged", advice="roll back what is published")
            set_values(connection, [partition_id], state="failed")

    def rollback(self, product: str, key: str) -> Partition:
        """Show again what the current partition has replaced, and return it."""
        if self.release is not None:
            raise UsageError("a release is not rolled back by partitions", advice="see `stixflow release rollback`")
        with writing(self.engine) as connection:
            now = current(connection, product, key)
            if now.replaces is None:
                raise NotFound(
                    f"{product} {key} was published once",
                    expected="an earlier run of it",
                    advice="reprocess it instead",
                )
            earlier = read_partition(connection, now.replaces)
            if earlier.collected is not None:
                raise NotFound(
                    f"the run before the current one of {product} {key} was collected as garbage",
                    expected="a run whose store is kept",
                    advice="reprocess it instead",
                )
            flip(connection, [(earlier, now.id)], keep_replaces=True)
            return replace(earlier, state="published")

    def partition(self, partition_id: int) -> Partition:
        """Return one partition, whatever its state."""
        with reading(self.engine) as connection:
            return read_partition(connection, partition_id)

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
        query = where(query, table, key=key, request_id=request_id).order_by(
            table.c.start, table.c.product, table.c.key
        )
        if product is not None:
            query = query.where(table.c.product.in_([product] if isinstance(product, str) else list(product)))
        if start is not None:
            query = query.where(shown.c.stop > to_ns(start))
        if stop is not None:
            query = query.where(shown.c.start < to_ns(stop))
        return [partition_of(row) for row in self._rows(query)]

    def current_of(self, keys: Iterable[Key]) -> dict[Key, Partition]:
        """Return the partitions that readers see of some products and keys; of one that has none, nothing."""
        with reading(self.engine) as connection:
            found = pointers(connection, keys, self.release)
            known = read_partitions(connection, found.values())
        return {key: known[partition_id] for key, partition_id in found.items()}

    def shown_of(self, paths: Iterable[str]) -> set[str]:
        """Return those of some stores, by their paths below the root, that are of partitions that are shown."""
        table, shown = tables.partition, self._shown
        query = sa.select(table.c.path).join(shown, shown.c.partition_id == table.c.id)
        rows = [row for some in chunks(sorted(set(paths))) for row in self._rows(query.where(table.c.path.in_(some)))]
        return {row["path"] for row in rows}

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
        return [with_times(row, "start", "stop") for row in self._rows(query)]

    def history(self, product: str, key: str) -> list[Partition]:
        """Return every partition that was ever staged for a key, the oldest first."""
        table = tables.partition
        query = where(sa.select(table), table, product=product, key=key).order_by(table.c.id)
        return [partition_of(row) for row in self._rows(query)]

    def built_by(self, runs: Iterable[str]) -> list[tuple[str, str, str]]:
        """Return run, product and key of every partition that these runs staged."""
        table, found = tables.partition, []
        wanted = sorted(runs)
        for some in chunks(wanted):
            found += self._rows(sa.select(table.c.run_id, table.c.product, table.c.key).where(table.c.run_id.in_(some)))
        return [(row["run_id"], row["product"], row["key"]) for row in found]

    def days(self) -> dict[tuple[str, str], str]:
        """Return the day of every partition that was ever staged, by product and key; the last where it has moved."""
        table = tables.partition
        rows = self._rows(sa.select(table.c.product, table.c.key, table.c.day).order_by(table.c.id))
        return {(row["product"], row["key"]): row["day"] for row in rows}

    def rolled_back(self) -> set[tuple[str, str, str]]:
        """Return product, key and input digest of the partitions that were rolled back from; of a release, none.

        One of the same inputs as what is shown is not among them: a store of these that is lost may be built again.
        """
        if self.release is not None:
            return set()
        table, pointer, shown = tables.partition, tables.current, tables.partition.alias("shown")
        mine = sa.and_(pointer.c.product == table.c.product, pointer.c.key == table.c.key)
        query = (
            sa.select(table.c.product, table.c.key, table.c.input_digest)
            .join(pointer, mine)
            .join(shown, shown.c.id == pointer.c.partition_id)
            .where(table.c.id > shown.c.id, table.c.state == "superseded", table.c.input_digest != shown.c.input_digest)
        )
        return {(row["product"], row["key"], row["input_digest"]) for row in self._rows(query)}

    def _check_release(self, name: str) -> None:
        known = [row["name"] for row in self._rows(sa.select(tables.release.c.name).order_by(tables.release.c.name))]
        if name not in known:
            raise NotFound(
                f"there is no release {name!r}",
                expected=f"one of {', '.join(known)}" if known else "None: no release was made yet",
                advice="correct the name, or see `stixflow release list`",
            )


def _row_of(partition: Partition, now: int) -> dict[str, Any]:
    """Return what the catalog keeps of a partition that is staged now."""
    check_name(partition.key)
    check_path(partition.path)
    values = columns(partition)
    del values["id"]
    return values | {
        "state": "staged",
        "day": partition.day.isoformat(),
        "start": to_ns(partition.start),
        "stop": to_ns(partition.stop),
        "created": now,
        "attrs": to_json(partition.attrs),
    }


def _known_paths(connection: sa.Connection, paths: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return id and digest of the partitions of stores by path."""
    table = tables.partition
    known: dict[str, tuple[int, str]] = {}
    for some in chunks(paths):
        query = sa.select(table.c.path, table.c.id, table.c.digest).where(table.c.path.in_(some))
        known |= {row.path: (row.id, row.digest) for row in connection.execute(query)}
    return known


def _pinned(release: str) -> Any:
    """Return, in place of the table `current`, the pointers of a release."""
    table, mine = tables.partition, tables.release_partition
    query = sa.select(mine.c.product, mine.c.key, mine.c.partition_id, table.c.start, table.c.stop)
    return query.join(table, table.c.id == mine.c.partition_id).where(mine.c.release == release).subquery()
