"""Findings: flares, where they are, and their images; of the present, or as a release keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.layout import check_id, check_path
from stixflow.archive.publishing import read_partition
from stixflow.archive.queries import Database, between, chunks, covering, where, with_times
from stixflow.archive.values import from_json, number, rows_of, take, to_json, to_ns

if TYPE_CHECKING:
    import pandas as pd


class Findings(Database):
    """The part of the catalog that knows flares and images."""

    def replace_flares(self, partition_id: int, flares: pd.DataFrame | Iterable[Mapping[str, object]]) -> None:
        """Make these the flares found in a day's light curve.

        Readers see them while that partition is current, so flares of a staged partition appear with it, in the same
        transaction, and go with it when it is rolled back.

        Parameters
        ----------
        flares
            One row per flare with `flare_id`, `start`, `peak`, `stop`, `peak_counts`; any other column is kept too.
        """
        table = tables.flare
        rows = [flare_row(partition_id, row) | {"release": self._scope} for row in rows_of(flares)]
        with self._writing() as connection:
            read_partition(connection, partition_id)
            mine = sa.and_(table.c.partition_id == partition_id, table.c.release == self._scope)
            connection.execute(table.delete().where(mine))
            if rows:
                connection.execute(tables.flare.insert(), rows)

    def flares(
        self, start: object = None, stop: object = None, *, flare_id: object = None, at: object = None
    ) -> list[dict[str, Any]]:
        """Return the flares whose peak lies in ``[start, stop)``, or that go on `at` a time, by peak."""
        table, shown, place = tables.flare, self._shown, tables.location
        query = (
            sa.select(
                table,
                tables.partition.c.key.label("day"),
                tables.partition.c.run_id,
                tables.location.c.attrs.label("location"),
            )
            .join(shown, shown.c.partition_id == table.c.partition_id)
            .join(tables.partition, tables.partition.c.id == table.c.partition_id)
            .join(
                place, sa.and_(place.c.flare_id == table.c.flare_id, place.c.release == table.c.release), isouter=True
            )
            .where(table.c.release == self._scope)
            .order_by(table.c.peak, table.c.flare_id)
        )
        query = where(query, table, flare_id=None if flare_id is None else str(flare_id))
        query = covering(between(query, table.c.peak, start, stop), table, at)
        return [_read_flare(row) for row in self._rows(query)]

    def locate_flares(self, locations: Mapping[str, Mapping[str, object]]) -> None:
        """Add where flares are to what `flares` returns for them: columns as `x_hpc`, `y_hpc`, by name of the flare.

        The location stays with the flare when its day is published again; columns of the same name are replaced.
        """
        table = tables.location
        known: dict[str, str] = {}
        with self._writing() as connection:
            for some in chunks(list(locations)):
                mine = sa.and_(table.c.release == self._scope, table.c.flare_id.in_(some))
                known |= {row.flare_id: row.attrs for row in connection.execute(sa.select(table).where(mine))}
                connection.execute(table.delete().where(mine))
            rows = [
                {
                    "flare_id": name,
                    "release": self._scope,
                    "attrs": to_json(from_json(known.get(name, "{}")) | dict(location)),
                }
                for name, location in locations.items()
            ]
            if rows:
                connection.execute(table.insert(), rows)

    def replace_images(self, images: Mapping[str, Iterable[Mapping[str, object]]], *, run_id: str) -> None:
        """Make these the images of flares, by name of the flare, in place of all earlier ones of each.

        Parameters
        ----------
        images
            One row per image with `image_id`, `method`, `energy_low`, `energy_high` (keV), `start`, `stop`, `path`
            (below the root), `digest`, and where known `x_hpc`, `y_hpc` (arcsec); any other column is kept.
        """
        table = tables.image
        rows = [
            image_row(row | {"flare_id": flare_id}, run_id) | {"release": self._scope}
            for flare_id, some in images.items()
            for row in rows_of(some)
        ]
        with self._writing() as connection:
            for some in chunks(list(images)):
                connection.execute(table.delete().where(table.c.flare_id.in_(some), table.c.release == self._scope))
            if rows:
                connection.execute(table.insert(), rows)

    def images(
        self,
        flare_id: object = None,
        start: object = None,
        stop: object = None,
        *,
        image_id: str | None = None,
        at: object = None,
    ) -> list[dict[str, Any]]:
        """Return images of a flare, or whose interval starts in ``[start, stop)`` or holds a time `at`, by start."""
        table = tables.image
        query = sa.select(table).where(table.c.release == self._scope).order_by(table.c.start, table.c.image_id)
        query = where(query, table, flare_id=None if flare_id is None else str(flare_id), image_id=image_id)
        return [_read_image(row) for row in self._rows(covering(between(query, table.c.start, start, stop), table, at))]

    def imaged(self) -> set[str]:
        """Return the names of the flares that have images."""
        table = tables.image
        query = sa.select(table.c.flare_id).where(table.c.release == self._scope, table.c.flare_id.is_not(None))
        return {row["flare_id"] for row in self._rows(query.distinct())}

    def totals(self) -> dict[str, int]:
        """Return how many files, quarantined pieces, published flares and images there are."""
        shown = (
            sa.select(tables.flare.c.id)
            .join(self._shown, self._shown.c.partition_id == tables.flare.c.partition_id)
            .where(tables.flare.c.release == self._scope)
        )
        counted = {"files": tables.file, "quarantined": tables.quarantine, "images": tables.image}
        selected = {name: sa.select(sa.func.count()).select_from(table) for name, table in counted.items()}
        selected["images"] = selected["images"].where(tables.image.c.release == self._scope)
        selected["flares"] = sa.select(sa.func.count()).select_from(shown.subquery())
        query = sa.select(*(part.scalar_subquery().label(name) for name, part in selected.items()))
        return self._rows(query)[0]


def flare_row(partition_id: int, row: dict[str, Any]) -> dict[str, Any]:
    flare_id, start, peak, stop, peak_counts = take(row, "flare_id", "start", "peak", "stop", "peak_counts")
    return {
        "partition_id": partition_id,
        "flare_id": check_id(flare_id),
        "start": to_ns(start),
        "peak": to_ns(peak),
        "stop": to_ns(stop),
        "peak_counts": number(peak_counts),
        "attrs": to_json(row),
    }


def _read_flare(row: dict[str, Any]) -> dict[str, Any]:
    del row["id"], row["partition_id"], row["release"]
    attrs = from_json(row.pop("attrs"))
    location = from_json(row.pop("location") or "{}")
    return attrs | location | with_times(row, "start", "peak", "stop")


def image_row(row: dict[str, Any], run_id: str) -> dict[str, Any]:
    image_id, method, path, digest = take(row, "image_id", "method", "path", "digest")
    low, high, start, stop = take(row, "energy_low", "energy_high", "start", "stop")
    flare_id = row.pop("flare_id", None)
    return {
        "image_id": check_id(image_id),
        "flare_id": None if flare_id is None else check_id(flare_id),
        "method": str(method),
        "energy_low": float(low),
        "energy_high": float(high),
        "start": to_ns(start),
        "stop": to_ns(stop),
        "path": check_path(str(path)),
        "digest": str(digest),
        "x_hpc": number(row.pop("x_hpc", None)),
        "y_hpc": number(row.pop("y_hpc", None)),
        "run_id": run_id,
        "created": tables.now_ns(),
        "attrs": to_json(row),
    }


def _read_image(row: dict[str, Any]) -> dict[str, Any]:
    del row["id"], row["release"]
    attrs = from_json(row.pop("attrs"))
    return attrs | with_times(row, "start", "stop", "created")
