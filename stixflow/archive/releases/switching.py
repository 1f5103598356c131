"""The switch: a validated release takes the place of what readers see, in one transaction, and one more takes it back.

The switch asks once more, while other writers wait, whether anything was published that the release does not have, and
then moves all pointers and findings together. What readers saw until then is kept as a release of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.marks import IMAGED
from stixflow.archive.queries import chunks
from stixflow.archive.releases.kept import change_release, check_state, find_release, free_name, keep_present
from stixflow.archive.releases.plan import CandidatePlan, plan_text, read_plan
from stixflow.archive.releases.taking import behind, take_missing
from stixflow.archive.tables import PRESENT, copy_rows, delete_rows
from stixflow.archive.transactions import count_rows, writing
from stixflow.errors import NotFound, PublishConflict, UsageError

_NAMED = 5
"""So many of what came after a candidate are named."""


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch did: how many pointers moved, came and went, and what readers see of findings now."""

    release: str
    before: str
    """The release that keeps what readers saw until then."""
    moved: int
    added: int
    removed: int
    kept: int
    """Partitions left as they were: published since with other packets, or never rebuilt."""
    flares: int
    images: int


def switch(catalog: Catalog, name: str, *, nothing_inside: Sequence[tuple[str, str]] = ()) -> Switched:
    """Show a validated release to readers: every pointer, flare and image of it, in one transaction.

    Parameters
    ----------
    nothing_inside
        Product and key of what readers see now whose packets turned out to hold no bin of it: it goes. Whatever else
        the release lacks stays as it is.

    Raises
    ------
    PublishConflict
        If something was published since that the release does not have; it is to be brought up to date first.
    UsageError
        If it is not validated.
    """
    with writing(catalog.engine) as connection:
        row = find_release(connection, name)
        check_state(name, row["state"], ("validated", "final"))
        if row["switched"] is not None:
            raise UsageError(f"the release {name} is shown already", advice="see `stixflow release list`")
        plan = read_plan(row)
        _check_in_step(connection, name, plan)
        kept = take_missing(connection, name, set(nothing_inside))
        before = free_name(connection, f"{name}-before")
        note = f"what readers saw before {name}"
        keep_present(connection, before, note=note, code_version=row["code_version"], moves_images=True)
        moved, added, removed = _move_pointers(connection, name)
        flares, images = _show_findings(connection, name)
        table = tables.release
        last = connection.execute(sa.select(table.c.name).where(table.c.switched.is_not(None))).scalar() or ""
        connection.execute(table.update().values(switched=None))
        kept_plan = plan_text(replace(plan, shown_before=last))
        change_release(connection, name, state="final", before=before, switched=tables.now_ns(), plan=kept_plan)
    return Switched(name, before, moved, added, removed, kept, flares, images)


def _check_in_step(connection: sa.Connection, name: str, plan: CandidatePlan) -> None:
    lacking = behind(connection, name, plan)
    if lacking:
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        raise PublishConflict(
            f"{', '.join(' '.join(key) for key in lacking[:_NAMED])}{more} came after {name} was brought up to date",
            expected="a release that has all that readers see",
            advice="run the same `stixflow reprocess` again: it builds only these",
        )


def _move_pointers(connection: sa.Connection, name: str) -> tuple[int, int, int]:
    """Point readers to the partitions of a release, those that they replace being superseded; counts as `_follow`."""
    mine, now, table = tables.release_partition, tables.current, tables.partition
    before = (
        sa.select(now.c.partition_id)
        .where(now.c.product == table.c.product, now.c.key == table.c.key)
        .correlate(table)
        .scalar_subquery()
    )
    shown = sa.exists().where(now.c.partition_id == table.c.id)
    of_release = sa.exists().where(mine.c.release == name, mine.c.partition_id == table.c.id)
    coming = sa.and_(of_release, sa.not_(shown))
    going = sa.and_(shown, sa.not_(of_release))
    connection.execute(table.update().where(coming).values(state="published", replaces=before))
    connection.execute(table.update().where(going).values(state="superseded"))
    return _follow(connection, name)


def _follow(connection: sa.Connection, name: str, *conditions: sa.ColumnElement[bool]) -> tuple[int, int, int]:
    """Point readers to what a release has, where conditions hold of what they see: how many moved, came, went."""
    theirs, now, table = tables.release_partition.alias("theirs"), tables.current, tables.partition
    same = sa.and_(theirs.c.release == name, theirs.c.product == now.c.product, theirs.c.key == now.c.key)
    removed = connection.execute(now.delete().where(*conditions, sa.not_(sa.exists().where(same)))).rowcount
    other = sa.and_(same, theirs.c.partition_id != now.c.partition_id, table.c.id == theirs.c.partition_id)
    span = {"partition_id": table.c.id, "start": table.c.start, "stop": table.c.stop}
    change = now.update().where(other, *conditions).values(**span, revision=now.c.revision + 1)
    moved = connection.execute(change).rowcount
    fresh = (
        sa.select(theirs.c.product, theirs.c.key, table.c.id, sa.literal(1), table.c.start, table.c.stop)
        .join(table, table.c.id == theirs.c.partition_id)
        .where(theirs.c.release == name, sa.not_(sa.exists().where(same)))
    )
    names = ["product", "key", "partition_id", "revision", "start", "stop"]
    return moved, count_rows(connection, now.insert().from_select(names, fresh)), removed


def _show_findings(connection: sa.Connection, name: str) -> tuple[int, int]:
    """Put the flares, images and marks of a release in place of those of the present."""
    flare, done = tables.flare, tables.done
    shown = flare.c.partition_id.in_(sa.select(tables.current.c.partition_id))
    connection.execute(flare.delete().where(flare.c.release == PRESENT, shown))
    flares = copy_rows(connection, flare, name, PRESENT, shown)
    for table in (tables.image, tables.location):
        delete_rows(connection, table, PRESENT)
    images = copy_rows(connection, tables.image, name, PRESENT)
    copy_rows(connection, tables.location, name, PRESENT)
    # A flare that is found again some day is to be imaged again: no mark may outlive its images.
    connection.execute(done.delete().where(done.c.release == PRESENT, done.c.stage == IMAGED))
    _replace_marks(connection, name)
    return flares, images


def _replace_marks(connection: sa.Connection, name: str) -> None:
    """Copy the marks of a release to the present, in place of those of the same stage and item."""
    done, theirs = tables.done, tables.done.alias()
    again = sa.exists().where(theirs.c.release == name, theirs.c.stage == done.c.stage, theirs.c.item == done.c.item)
    connection.execute(done.delete().where(done.c.release == PRESENT, again))
    copy_rows(connection, done, name, PRESENT)


# And back -------------------------------------------------------------------------------------------------------------


def switch_back(catalog: Catalog, name: str) -> Switched:
    """Take a switch back, in one transaction: readers see again what they saw before it, and what is newer.

    Partitions that were published after the switch, with packets that came later, stay as they are.

    Raises
    ------
    UsageError
        If the release is not the one that is shown.
    NotFound
        If what readers saw before was dropped.
    """
    with writing(catalog.engine) as connection:
        row = find_release(connection, name)
        if row["switched"] is None:
            raise UsageError(
                f"the release {name} is not shown",
                expected="the one that was switched to last",
                advice="see `stixflow release list`",
            )
        before = row["before"]
        if before is None:
            raise NotFound(
                f"what readers saw before {name} was dropped", expected=f"the release {name}-before", advice="reprocess"
            )
        kept = _count_newer(connection, name)
        moved, added, removed = _return_pointers(connection, name, before)
        flares, images = _return_findings(connection, name, before)
        change_release(connection, name, switched=None, before=None)
        change_release(connection, read_plan(row).shown_before, switched=tables.now_ns())
    return Switched(before, name, moved, added, removed, kept, flares, images)


def _count_newer(connection: sa.Connection, name: str) -> int:
    """Return how many of the partitions that readers see are not those of the release that was shown to them."""
    mine, now = tables.release_partition, tables.current
    same = sa.exists().where(mine.c.release == name, mine.c.partition_id == now.c.partition_id)
    return int(connection.execute(sa.select(sa.func.count()).select_from(now).where(sa.not_(same))).scalar_one())


def _return_pointers(connection: sa.Connection, name: str, before: str) -> tuple[int, int, int]:
    """Point readers from the partitions of a release to those of the one before; counts as `_follow`."""
    now, table, mine = tables.current, tables.partition, tables.release_partition.alias("mine")
    shown = sa.select(now.c.partition_id)
    earlier = set(connection.execute(shown).scalars())
    ours = sa.exists().where(mine.c.release == name, mine.c.partition_id == now.c.partition_id)
    changed = _follow(connection, before, ours)
    for ids in chunks(sorted(earlier - set(connection.execute(shown).scalars()))):
        connection.execute(table.update().where(table.c.id.in_(ids)).values(state="superseded"))
    connection.execute(table.update().where(table.c.id.in_(shown)).values(state="published"))
    return changed


def _return_findings(connection: sa.Connection, name: str, before: str) -> tuple[int, int]:
    """Put back the flares, images and marks of the release before, but for those of newer partitions."""
    flares, images = _return_flares(connection, before), _return_images(connection, name, before)
    _return_locations(connection, before)
    done, image = tables.done, tables.image
    imaged = sa.exists().where(image.c.release == name, image.c.flare_id == done.c.item)
    connection.execute(done.delete().where(done.c.release == PRESENT, done.c.stage == IMAGED, imaged))
    _replace_marks(connection, before)
    return flares, images


def _return_flares(connection: sa.Connection, before: str) -> int:
    flare, pointers = tables.flare, tables.release_partition
    shown = flare.c.partition_id.in_(sa.select(tables.current.c.partition_id))
    theirs = flare.c.partition_id.in_(sa.select(pointers.c.partition_id).where(pointers.c.release == before))
    connection.execute(flare.delete().where(flare.c.release == PRESENT, shown, theirs))
    return copy_rows(connection, flare, before, PRESENT, shown, theirs)


def _return_images(connection: sa.Connection, name: str, before: str) -> int:
    image, other = tables.image, tables.image.alias()
    imaged = sa.exists().where(other.c.release == name, other.c.flare_id == image.c.flare_id)
    # Each condition for itself: PostgreSQL asks an OR of subqueries row by row.
    for gone in (image.c.flare_id.is_(None), imaged):
        connection.execute(image.delete().where(image.c.release == PRESENT, gone))
    has = sa.exists().where(other.c.release == PRESENT, other.c.image_id == image.c.image_id)
    return copy_rows(connection, image, before, PRESENT, sa.not_(has))


def _return_locations(connection: sa.Connection, before: str) -> None:
    location, theirs = tables.location, tables.location.alias()
    located = sa.exists().where(theirs.c.release == before, theirs.c.flare_id == location.c.flare_id)
    connection.execute(location.delete().where(location.c.release == PRESENT, located))
    copy_rows(connection, location, before, PRESENT)
