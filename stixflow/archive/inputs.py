"""Inputs: files, the packets that came out of them, and what could not be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.entries import FileEntry, PacketSet, Quarantined
from stixflow.archive.layout import check_path
from stixflow.archive.queries import Database, chunks, columns, where, with_times
from stixflow.archive.transactions import writing
from stixflow.archive.values import from_json, to_json
from stixflow.errors import BalanceError


class Inputs(Database):
    """The part of the catalog that knows files, packet sets and quarantine."""

    def known_files(self, digests: Iterable[str]) -> set[str]:
        """Return those of some digests of which a file has been ingested."""
        column = tables.file.c.digest
        parts = chunks(sorted(set(digests)))
        return {row["digest"] for some in parts for row in self._rows(sa.select(column).where(column.in_(some)))}

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
        check_path(entry.path or "none")
        values = columns(entry) | {"attrs": to_json(entry.attrs), "run_id": run_id, "ingested": tables.now_ns()}
        with writing(self.engine) as connection:
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
        return [with_times(row, "ingested", attrs=True) for row in self._rows(query)]

    def packet_sets(self, product: str | None = None, key: str | None = None) -> list[PacketSet]:
        """Return the packet sets of a partition, or of all of them, in a fixed order."""
        table = tables.packet_set
        query = sa.select(table).order_by(table.c.product, table.c.key, table.c.digest)
        wanted = where(query, table, product=product, key=key)
        names = [item.name for item in fields(PacketSet)]
        return [
            PacketSet(**{name: row[name] for name in names} | {"attrs": from_json(row["attrs"])})
            for row in self._rows(wanted)
        ]

    def quarantine(self, quarantined: Iterable[Quarantined], *, run_id: str) -> None:
        """Record bytes that could not be used."""
        with writing(self.engine) as connection:
            _add_quarantined(connection, quarantined, run_id)

    def quarantined(self, run_id: str | None = None) -> list[dict[str, Any]]:
        """Return what is in quarantine, of one run or of all."""
        query = where(sa.select(tables.quarantine).order_by(tables.quarantine.c.id), tables.quarantine, run_id=run_id)
        return [with_times(row, "created") for row in self._rows(query)]


def _add_packet_sets(connection: sa.Connection, packet_sets: Iterable[PacketSet], run_id: str) -> None:
    table = tables.packet_set
    sets = {(item.product, item.key, item.digest): item for item in reversed(list(packet_sets))}
    for item in sets.values():
        check_path(item.path)
    same = sa.tuple_(table.c.product, table.c.key, table.c.digest)
    for some in chunks(sorted(sets)):
        for row in connection.execute(sa.select(table.c.product, table.c.key, table.c.digest).where(same.in_(some))):
            del sets[tuple(row)]
    rows = [columns(item) | {"attrs": to_json(item.attrs), "run_id": run_id} for item in reversed(sets.values())]
    if rows:
        connection.execute(table.insert(), rows)


def _add_quarantined(connection: sa.Connection, quarantined: Iterable[Quarantined], run_id: str) -> None:
    rows = [columns(item) | {"run_id": run_id, "created": tables.now_ns()} for item in quarantined]
    for row in rows:
        check_path(row["path"] or "none")
    if rows:
        connection.execute(tables.quarantine.insert(), rows)
