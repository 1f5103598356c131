"""What a candidate takes over of what readers see: all that it does not rebuild, again and again until the switch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.marks import FILE_HAS_MORE, IMAGED, SEARCHED
from stixflow.archive.queries import chunks
from stixflow.archive.releases.kept import change_release, check_state, find_release
from stixflow.archive.releases.plan import CandidatePlan, Scope, plan_text, read_plan
from stixflow.archive.tables import PRESENT, copy_rows
from stixflow.archive.transactions import count_rows, writing


def take_over(catalog: Catalog, name: str) -> int:
    """Bring what a candidate does not rebuild into step with what readers see; return how many pointers changed.

    Taken over are the partitions outside its scope and those whose packets the archive does not have, with the
    flares and images found in them.
    """
    with writing(catalog.engine) as connection:
        row = find_release(connection, name)
        check_state(name, row["state"], ("open", "validated"))
        plan = read_plan(row)
        changed = _take_pointers(connection, name, plan.scope)
        _take_flares(connection, name, plan.scope)
        _take_images(connection, name, plan.scope)
        _take_choices(connection, name)
        last = connection.execute(sa.select(sa.func.max(tables.packet_set.c.id))).scalar() or 0
        if changed or last != plan.packets_upto:
            change_release(connection, name, state="open", plan=plan_text(replace(plan, packets_upto=int(last))))
    return changed


def adopt(catalog: Catalog, name: str, partition_ids: Sequence[int]) -> None:
    """Point an open release to partitions that readers see, which are what it would build itself."""
    table = tables.partition
    with writing(catalog.engine) as connection:
        check_state(name, find_release(connection, name)["state"], ("open", "validated"))
        for ids in chunks(partition_ids):
            mine = tables.release_partition
            keys = sa.select(table.c.product, table.c.key).where(table.c.id.in_(ids))
            connection.execute(
                mine.delete().where(mine.c.release == name, sa.tuple_(mine.c.product, mine.c.key).in_(keys))
            )
            rows = sa.select(sa.literal(name), table.c.product, table.c.key, table.c.id, sa.false())
            names = ["release", "product", "key", "partition_id", "taken"]
            connection.execute(mine.insert().from_select(names, rows.where(table.c.id.in_(ids))))
        change_release(connection, name, state="open")


def behind(connection: sa.Connection, name: str, plan: CandidatePlan) -> list[tuple[str, str]]:
    """Return product and key of what readers see by now that a candidate does not have."""
    return [*_out_of_step(connection, name, plan.scope), *_published_since(connection, name, plan)]


def take_missing(connection: sa.Connection, name: str, leaves: set[tuple[str, str]]) -> int:
    """Take over what readers see and the release lacks, but for what has nothing inside: a switch loses nothing."""
    mine, now = tables.release_partition, tables.current
    has = sa.exists().where(mine.c.release == name, mine.c.product == now.c.product, mine.c.key == now.c.key)
    lacking = connection.execute(sa.select(now.c.product, now.c.key, now.c.partition_id).where(sa.not_(has)))
    rows = [row._asdict() | {"release": name, "taken": True} for row in lacking if (row.product, row.key) not in leaves]
    if rows:
        connection.execute(mine.insert(), rows)
    for ids in chunks([row["partition_id"] for row in rows]):
        _take_findings(connection, name, ids)
    return len(rows)


# Pieces ---------------------------------------------------------------------------------------------------------------


def _covered(scope: Scope, product: str | None = None) -> sa.ColumnElement[bool]:
    """Return whether a row of `partition` (or what was found in it) is rebuilt."""
    table = tables.partition
    days = sa.and_(table.c.day >= scope.start, table.c.day < scope.stop)
    if product is None:
        return sa.and_(days, table.c.product.in_(scope.products))
    return days if product in scope.products else sa.false()


def _taken(scope: Scope) -> sa.Select[Any]:
    """Return product, key and partition of everything readers see that is not rebuilt."""
    now, table, sets = tables.current, tables.partition, tables.packet_set
    has_packets = sa.exists().where(sets.c.product == now.c.product, sets.c.key == now.c.key)
    return (
        sa.select(now.c.product, now.c.key, now.c.partition_id)
        .join(table, table.c.id == now.c.partition_id)
        .where(sa.or_(sa.not_(_covered(scope)), sa.not_(has_packets)))
    )


def _take_pointers(connection: sa.Connection, name: str, scope: Scope) -> int:
    mine, wanted = tables.release_partition, _taken(scope).subquery()
    same = sa.exists().where(wanted.c.partition_id == mine.c.partition_id)
    stale = sa.and_(mine.c.release == name, mine.c.taken, sa.not_(same))
    gone = connection.execute(mine.delete().where(stale)).rowcount
    known = sa.exists().where(mine.c.release == name, mine.c.product == wanted.c.product, mine.c.key == wanted.c.key)
    fresh = sa.select(
        sa.literal(name), wanted.c.product, wanted.c.key, wanted.c.partition_id, sa.true()
    ).where(sa.not_(known))  # fmt: skip
    names = ["release", "product", "key", "partition_id", "taken"]
    return gone + count_rows(connection, mine.insert().from_select(names, fresh))


def _take_flares(connection: sa.Connection, name: str, scope: Scope) -> None:
    """Copy the flares of days that are taken over, where the present has searched them and the candidate has not."""
    mine, table, done = tables.release_partition, tables.partition, tables.done
    item = sa.cast(table.c.id, sa.Text)
    days = (
        sa.select(table.c.id)
        .join(mine, mine.c.partition_id == table.c.id)
        .where(mine.c.release == name, mine.c.taken, sa.not_(_covered(scope, "flares")))
        .where(_is_done(done.alias(), PRESENT, SEARCHED, item), sa.not_(_is_done(done.alias(), name, SEARCHED, item)))
    )
    for ids in chunks(list(connection.execute(days).scalars())):
        copy_rows(connection, tables.flare, PRESENT, name, tables.flare.c.partition_id.in_(ids))
        items = [str(one) for one in ids]
        copy_rows(connection, done, PRESENT, name, done.c.stage == SEARCHED, done.c.item.in_(items))


def _is_done(done: Any, release: str, stage: str, item: Any) -> Any:
    return sa.exists().where(done.c.release == release, done.c.stage == stage, done.c.item == item)


def _take_images(connection: sa.Connection, name: str, scope: Scope) -> None:
    """Copy the images of flares that are not imaged again, where the present has them and the candidate has not."""
    flare, table, now, done, image = tables.flare, tables.partition, tables.current, tables.done, tables.image
    shown = (
        sa.select(flare.c.flare_id)
        .join(table, table.c.id == flare.c.partition_id)
        .join(now, now.c.partition_id == table.c.id)
        .where(flare.c.release == PRESENT, sa.not_(_covered(scope, "images")))
        .where(_is_done(done.alias(), PRESENT, IMAGED, flare.c.flare_id))
        .where(sa.not_(_is_done(done.alias(), name, IMAGED, flare.c.flare_id)))
    )
    for ids in chunks(list(connection.execute(shown).scalars())):
        copy_rows(connection, image, PRESENT, name, image.c.flare_id.in_(ids))
        copy_rows(connection, tables.location, PRESENT, name, tables.location.c.flare_id.in_(ids))
        copy_rows(connection, done, PRESENT, name, done.c.stage == IMAGED, done.c.item.in_(ids))
    known = image.alias()
    has = sa.exists().where(known.c.release == name, known.c.image_id == image.c.image_id)
    copy_rows(connection, image, PRESENT, name, image.c.flare_id.is_(None), sa.not_(has))


def _take_choices(connection: sa.Connection, name: str) -> None:
    """Copy of which partitions it is known that an official file holds more than their packets so far."""
    done = tables.done
    has = _is_done(done.alias(), name, FILE_HAS_MORE, done.c.item)
    copy_rows(connection, done, PRESENT, name, done.c.stage == FILE_HAS_MORE, sa.not_(has))


def _take_findings(connection: sa.Connection, name: str, ids: Sequence[int]) -> None:
    """Take over the flares found in some partitions, their marks, and what the release lacks of their images."""
    flare, image, location, done = tables.flare, tables.image, tables.location, tables.done
    connection.execute(flare.delete().where(flare.c.release == name, flare.c.partition_id.in_(ids)))
    copy_rows(connection, flare, PRESENT, name, flare.c.partition_id.in_(ids))
    searched = sa.and_(done.c.stage == SEARCHED, done.c.item.in_([str(one) for one in ids]))
    connection.execute(done.delete().where(done.c.release == name, searched))
    copy_rows(connection, done, PRESENT, name, searched)
    found = sa.select(flare.c.flare_id).where(flare.c.release == name, flare.c.partition_id.in_(ids))
    for table in (image, location):
        known = table.alias()
        has = sa.exists().where(known.c.release == name, known.c.flare_id == table.c.flare_id)
        copy_rows(connection, table, PRESENT, name, table.c.flare_id.in_(found), sa.not_(has))
    has = _is_done(done.alias(), name, IMAGED, done.c.item)
    copy_rows(connection, done, PRESENT, name, done.c.stage == IMAGED, done.c.item.in_(found), sa.not_(has))


def _out_of_step(connection: sa.Connection, name: str, scope: Scope) -> list[tuple[str, str]]:
    """Return what the release takes over of which readers see something else by now."""
    mine, wanted = tables.release_partition, _taken(scope).subquery()
    same = sa.and_(
        mine.c.release == name, mine.c.product == wanted.c.product, mine.c.key == wanted.c.key,
        mine.c.partition_id == wanted.c.partition_id,
    )  # fmt: skip
    query = sa.select(wanted.c.product, wanted.c.key).where(sa.not_(sa.exists().where(same)))
    return [(row.product, row.key) for row in connection.execute(query)]


def _published_since(connection: sa.Connection, name: str, plan: CandidatePlan) -> list[tuple[str, str]]:
    """Return what readers see with packets that came after the release was planned, where it has other packets."""
    mine, sets, now = tables.release_partition, tables.packet_set, tables.current
    theirs, ours = tables.partition.alias("theirs"), tables.partition.alias("ours")
    late = sa.select(sets.c.product, sets.c.key).where(sets.c.id > plan.packets_upto).distinct().subquery()
    query = (
        sa.select(now.c.product, now.c.key)
        .join(late, sa.and_(late.c.product == now.c.product, late.c.key == now.c.key))
        .join(theirs, theirs.c.id == now.c.partition_id)
        .join(
            mine,
            sa.and_(mine.c.release == name, mine.c.product == now.c.product, mine.c.key == now.c.key),
            isouter=True,
        )
        .join(ours, ours.c.id == mine.c.partition_id, isouter=True)
        .where(sa.or_(ours.c.id.is_(None), ours.c.input_digest != theirs.c.input_digest))
    )
    return [(row.product, row.key) for row in connection.execute(query)]
