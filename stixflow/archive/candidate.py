"""Candidates: releases that are built beside what readers see, and then take its place in one transaction.

An open release has pointers, flares, images and marks of its own. What lies outside its scope it takes over from what
readers see, again and again. The switch asks once more, while other writers wait, whether anything was published that
the candidate does not have, and then moves all pointers and findings together. What readers saw until then is kept as a
release of its own, so that one more transaction takes the switch back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.releases import check_release_name, free_name, keep_present
from stixflow.archive.tables import PRESENT, copy_rows
from stixflow.archive.transactions import count_rows, reading, writing
from stixflow.archive.values import from_json, to_json
from stixflow.cubes.model import PRODUCTS
from stixflow.errors import NotFound, PublishConflict, UsageError

REBUILT = (*PRODUCTS, "flares", "images")
"""What a candidate may rebuild: products, and what is found in them."""

_FIRST, _LAST = "0000-00-00", "9999-99-99"
_FINDINGS = (tables.flare, tables.location, tables.image, tables.done)
_NAMED = 5


@dataclass(frozen=True, slots=True)
class Scope:
    """What a candidate rebuilds: some products on the days of ``[start, stop)``; all that there is by default."""

    start: str = _FIRST
    stop: str = _LAST
    products: tuple[str, ...] = REBUILT

    def __post_init__(self) -> None:
        unknown = sorted(set(self.products) - set(REBUILT))
        if unknown:
            raise UsageError(
                f"{', '.join(unknown)} cannot be rebuilt", expected=", ".join(REBUILT), advice="correct it"
            )
        if not self.start < self.stop:
            raise UsageError(f"no day lies in {self.start} to {self.stop}", expected="start before stop")

    @property
    def is_whole(self) -> bool:
        """Tell whether every day is in it."""
        return (self.start, self.stop) == (_FIRST, _LAST)

    def covers(self, product: str, day: str | date) -> bool:
        """Tell whether a product (or ``flares``, ``images``) of a day is rebuilt."""
        return product in self.products and self.start <= str(day) < self.stop

    def __str__(self) -> str:
        days = "every day" if self.is_whole else f"{self.start} to {self.stop}".replace(_FIRST, "").replace(_LAST, "")
        return days if self.products == REBUILT else f"{days}: {', '.join(self.products)}"


@dataclass(frozen=True, slots=True)
class CandidatePlan:
    """What an open release is to be, kept with it, so that whoever goes on makes the same."""

    scope: Scope
    made_by: Mapping[str, str]
    """Code, clock and detector that everything in it is made by."""
    packets_upto: int = 0
    """Number of the last packet set that it has looked at."""
    shown_before: str = ""
    """The release that was shown when readers were switched to this one; empty if there was none."""


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


# Beginning and ending ---------------------------------------------------------------------------------------------


def begin_candidate(
    catalog: Catalog, name: str, scope: Scope, *, made_by: Mapping[str, str], note: str = "", restart: bool = False
) -> bool:
    """Open a release to build in, or go on with one; return whether it is new.

    Parameters
    ----------
    made_by
        Code, clock and detector; a release is made by one of each.
    restart
        Go on with another code, clock or detector: what the earlier one made is made again.

    Raises
    ------
    UsageError
        If the name belongs to a release that is final, or was opened for another scope, or by another code, clock or
        detector and `restart` is not given.
    """
    check_release_name(name)
    with writing(catalog._engine) as connection:
        row = connection.execute(sa.select(tables.release).where(tables.release.c.name == name)).mappings().first()
        plan = CandidatePlan(scope, dict(made_by))
        if row is None:
            values = {"name": name, "note": note, "code_version": made_by.get("code", ""), "state": "open"}
            connection.execute(
                tables.release.insert().values(**values, created=tables.now_ns(), plan=_plan_text(plan), report="{}")
            )
            return True
        _check_same(name, dict(row), plan, restart=restart)
        if read_plan(dict(row)).made_by != made_by:
            for table in _FINDINGS:
                connection.execute(table.delete().where(table.c.release == name))
            _set(connection, name, state="open", plan=_plan_text(plan), code_version=made_by.get("code", ""))
    return False


def _check_same(name: str, row: Mapping[str, Any], plan: CandidatePlan, *, restart: bool) -> None:
    if row["state"] == "final":
        raise UsageError(
            f"the release {name} exists and is final",
            expected="a new name: releases never change",
            advice="choose another",
        )
    found = read_plan(row)
    if found.scope != plan.scope:
        raise UsageError(
            f"the release {name} was opened for {found.scope}",
            expected="the same start, stop and products",
            advice=f"give the same again, or `stixflow release drop {name}` first",
        )
    other = [
        f"{part} {found.made_by.get(part)}" for part, value in plan.made_by.items() if found.made_by.get(part) != value
    ]
    if other and not restart:
        now = ", ".join(f"{part} {value}" for part, value in plan.made_by.items())
        raise UsageError(
            f"the release {name} was begun with {', '.join(other)}",
            expected=f"the same throughout, now there is {now}",
            advice="go on with the earlier one, or give --restart to make again what it made",
        )


def read_plan(row: Mapping[str, Any]) -> CandidatePlan:
    """Return the plan that a row of the table `release` keeps."""
    kept = from_json(row["plan"])
    scope = kept.get("scope", {})
    products = tuple(scope.get("products", REBUILT))
    return CandidatePlan(
        Scope(scope.get("start", _FIRST), scope.get("stop", _LAST), products),
        dict(kept.get("made_by", {})),
        int(kept.get("packets_upto", 0)),
        str(kept.get("shown_before", "")),
    )


def _plan_text(plan: CandidatePlan) -> str:
    return to_json(asdict(plan))


def candidate_plan(catalog: Catalog, name: str) -> CandidatePlan:
    """Return what an open release is to be."""
    with reading(catalog._engine) as connection:
        return read_plan(_row(connection, name))


def _row(connection: sa.Connection, name: str) -> dict[str, Any]:
    found = connection.execute(sa.select(tables.release).where(tables.release.c.name == name)).mappings().first()
    if found is None:
        raise NotFound(f"there is no release {name!r}", advice="see `stixflow release list`")
    return dict(found)


def _set(connection: sa.Connection, name: str, **values: object) -> None:
    connection.execute(tables.release.update().where(tables.release.c.name == name).values(**values))


def drop_release(catalog: Catalog, name: str, *, force: bool = False) -> dict[str, int]:
    """Forget a release; what only it pointed to becomes garbage.

    Raises
    ------
    UsageError
        If it is final, unless `force` is given: analysts may have named it in papers.
    """
    with writing(catalog._engine) as connection:
        state = _row(connection, name)["state"]
        if state == "final" and not force:
            raise UsageError(
                f"the release {name} is final: analysts may have pinned it",
                expected="a release that is open",
                advice="give --force if nobody needs it any more",
            )
        mine = tables.release_partition
        held = sa.select(mine.c.partition_id).where(mine.c.release != name)
        only = sa.select(mine.c.partition_id).where(mine.c.release == name, mine.c.partition_id.not_in(held))
        table = tables.partition
        connection.execute(table.update().where(table.c.id.in_(only), table.c.state == "staged").values(state="failed"))
        gone = {kept.name: _delete(connection, kept, name) for kept in (mine, *_FINDINGS)}
        connection.execute(tables.release.update().where(tables.release.c.before == name).values(before=None))
        connection.execute(tables.release.delete().where(tables.release.c.name == name))
    return {"partitions": gone["release_partition"], "flares": gone["flare"], "images": gone["image"]}


def _delete(connection: sa.Connection, table: sa.Table, name: str) -> int:
    return connection.execute(table.delete().where(table.c.release == name)).rowcount


def mark_validated(catalog: Catalog, name: str, report: Mapping[str, Any], *, passed: bool) -> None:
    """Keep the report of a validation with an open release, and whether it may be switched to."""
    with writing(catalog._engine) as connection:
        _check_state(name, _row(connection, name)["state"], ("open", "validated"))
        _set(connection, name, state="validated" if passed else "open", report=to_json(report))


def _check_state(name: str, state: str, allowed: Sequence[str]) -> None:
    if state not in allowed:
        raise UsageError(
            f"the release {name} is {state}",
            expected=" or ".join(allowed),
            advice="see its report: `stixflow release show`" if state == "open" else "make a new release",
        )


# Taking over ------------------------------------------------------------------------------------------------------


def take_over(catalog: Catalog, name: str) -> int:
    """Bring what a candidate does not rebuild into step with what readers see; return how many pointers changed.

    Taken over are the partitions outside its scope and those whose packets the archive does not have, with the
    flares and images found in them.
    """
    with writing(catalog._engine) as connection:
        row = _row(connection, name)
        _check_state(name, row["state"], ("open", "validated"))
        plan = read_plan(row)
        changed = _take_pointers(connection, name, plan.scope)
        _take_flares(connection, name, plan.scope)
        _take_images(connection, name, plan.scope)
        _take_choices(connection, name)
        last = connection.execute(sa.select(sa.func.max(tables.packet_set.c.id))).scalar() or 0
        if changed or last != plan.packets_upto:
            _set(connection, name, state="open", plan=_plan_text(replace(plan, packets_upto=int(last))))
    return changed


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
        .where(_is_done(done.alias(), PRESENT, "flares", item), sa.not_(_is_done(done.alias(), name, "flares", item)))
    )
    chosen = list(connection.execute(days).scalars())
    for ids in _pieces(chosen):
        copy_rows(connection, tables.flare, PRESENT, name, tables.flare.c.partition_id.in_(ids))
        items = [str(one) for one in ids]
        copy_rows(connection, done, PRESENT, name, done.c.stage == "flares", done.c.item.in_(items))


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
        .where(_is_done(done.alias(), PRESENT, "images", flare.c.flare_id))
        .where(sa.not_(_is_done(done.alias(), name, "images", flare.c.flare_id)))
    )
    for ids in _pieces(list(connection.execute(shown).scalars())):
        copy_rows(connection, image, PRESENT, name, image.c.flare_id.in_(ids))
        copy_rows(connection, tables.location, PRESENT, name, tables.location.c.flare_id.in_(ids))
        copy_rows(connection, done, PRESENT, name, done.c.stage == "images", done.c.item.in_(ids))
    known = image.alias()
    has = sa.exists().where(known.c.release == name, known.c.image_id == image.c.image_id)
    copy_rows(connection, image, PRESENT, name, image.c.flare_id.is_(None), sa.not_(has))


def _take_choices(connection: sa.Connection, name: str) -> None:
    """Copy of which partitions it is known that an official file holds more than their packets so far."""
    done, stage = tables.done, "cubes of packets with fewer bins than an official file"
    has = _is_done(done.alias(), name, stage, done.c.item)
    copy_rows(connection, done, PRESENT, name, done.c.stage == stage, sa.not_(has))


def _pieces(values: list[Any]) -> Iterator[list[Any]]:
    for first in range(0, len(values), tables.MANY):
        yield values[first : first + tables.MANY]


def adopt(catalog: Catalog, name: str, partition_ids: Sequence[int]) -> None:
    """Point an open release to partitions that readers see, which are what it would build itself."""
    table = tables.partition
    with writing(catalog._engine) as connection:
        _check_state(name, _row(connection, name)["state"], ("open", "validated"))
        for ids in _pieces(list(partition_ids)):
            mine = tables.release_partition
            keys = sa.select(table.c.product, table.c.key).where(table.c.id.in_(ids))
            connection.execute(
                mine.delete().where(mine.c.release == name, sa.tuple_(mine.c.product, mine.c.key).in_(keys))
            )
            rows = sa.select(sa.literal(name), table.c.product, table.c.key, table.c.id, sa.false())
            names = ["release", "product", "key", "partition_id", "taken"]
            connection.execute(mine.insert().from_select(names, rows.where(table.c.id.in_(ids))))
        _set(connection, name, state="open")


# Switching --------------------------------------------------------------------------------------------------------


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
    with writing(catalog._engine) as connection:
        row = _row(connection, name)
        _check_state(name, row["state"], ("validated", "final"))
        if row["switched"] is not None:
            raise UsageError(f"the release {name} is shown already", advice="see `stixflow release list`")
        plan = read_plan(row)
        _check_in_step(connection, name, plan)
        kept = _keep_missing(connection, name, set(nothing_inside))
        before = free_name(connection, f"{name}-before")
        note = f"what readers saw before {name}"
        keep_present(connection, before, note=note, code_version=row["code_version"], moves_images=True)
        moved, added, removed = _move_pointers(connection, name)
        flares, images = _show_findings(connection, name)
        table = tables.release
        last = connection.execute(sa.select(table.c.name).where(table.c.switched.is_not(None))).scalar() or ""
        connection.execute(table.update().values(switched=None))
        kept_plan = _plan_text(replace(plan, shown_before=last))
        _set(connection, name, state="final", before=before, switched=tables.now_ns(), plan=kept_plan)
    return Switched(name, before, moved, added, removed, kept, flares, images)


def _check_in_step(connection: sa.Connection, name: str, plan: CandidatePlan) -> None:
    behind = [*_out_of_step(connection, name, plan.scope), *_published_since(connection, name, plan)]
    if behind:
        more = f" and {len(behind) - _NAMED} more" if len(behind) > _NAMED else ""
        raise PublishConflict(
            f"{', '.join(' '.join(key) for key in behind[:_NAMED])}{more} came after {name} was brought up to date",
            expected="a release that has all that readers see",
            advice="run the same `stixflow reprocess` again: it builds only these",
        )


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


def _keep_missing(connection: sa.Connection, name: str, leaves: set[tuple[str, str]]) -> int:
    """Take over what readers see and the release lacks, but for what has nothing inside: a switch loses nothing."""
    mine, now = tables.release_partition, tables.current
    has = sa.exists().where(mine.c.release == name, mine.c.product == now.c.product, mine.c.key == now.c.key)
    lacking = connection.execute(sa.select(now.c.product, now.c.key, now.c.partition_id).where(sa.not_(has)))
    rows = [row._asdict() | {"release": name, "taken": True} for row in lacking if (row.product, row.key) not in leaves]
    if rows:
        connection.execute(mine.insert(), rows)
    for ids in _pieces([row["partition_id"] for row in rows]):
        _keep_findings(connection, name, ids)
    return len(rows)


def _keep_findings(connection: sa.Connection, name: str, ids: list[int]) -> None:
    """Take over the flares found in some partitions, their marks, and what the release lacks of their images."""
    flare, image, location, done = tables.flare, tables.image, tables.location, tables.done
    connection.execute(flare.delete().where(flare.c.release == name, flare.c.partition_id.in_(ids)))
    copy_rows(connection, flare, PRESENT, name, flare.c.partition_id.in_(ids))
    searched = sa.and_(done.c.stage == "flares", done.c.item.in_([str(one) for one in ids]))
    connection.execute(done.delete().where(done.c.release == name, searched))
    copy_rows(connection, done, PRESENT, name, searched)
    found = sa.select(flare.c.flare_id).where(flare.c.release == name, flare.c.partition_id.in_(ids))
    for table in (image, location):
        known = table.alias()
        has = sa.exists().where(known.c.release == name, known.c.flare_id == table.c.flare_id)
        copy_rows(connection, table, PRESENT, name, table.c.flare_id.in_(found), sa.not_(has))
    has = _is_done(done.alias(), name, "images", done.c.item)
    copy_rows(connection, done, PRESENT, name, done.c.stage == "images", done.c.item.in_(found), sa.not_(has))


def _move_pointers(connection: sa.Connection, name: str) -> tuple[int, int, int]:
    mine, now, table = tables.release_partition, tables.current, tables.partition
    same = sa.and_(mine.c.release == name, mine.c.product == now.c.product, mine.c.key == now.c.key)
    other = sa.and_(same, mine.c.partition_id != now.c.partition_id)
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
    removed = connection.execute(now.delete().where(sa.not_(sa.exists().where(same)))).rowcount
    span = {"partition_id": table.c.id, "start": table.c.start, "stop": table.c.stop}
    moved = connection.execute(
        now.update().where(other, table.c.id == mine.c.partition_id).values(**span, revision=now.c.revision + 1)
    ).rowcount
    fresh = (
        sa.select(mine.c.product, mine.c.key, table.c.id, sa.literal(1), table.c.start, table.c.stop)
        .join(table, table.c.id == mine.c.partition_id)
        .where(mine.c.release == name, sa.not_(sa.exists().where(same)))
    )
    names = ["product", "key", "partition_id", "revision", "start", "stop"]
    added = count_rows(connection, now.insert().from_select(names, fresh))
    return moved, added, removed


def _show_findings(connection: sa.Connection, name: str) -> tuple[int, int]:
    """Put the flares, images and marks of a release in place of those of the present."""
    flare, done = tables.flare, tables.done
    shown = flare.c.partition_id.in_(sa.select(tables.current.c.partition_id))
    connection.execute(flare.delete().where(flare.c.release == PRESENT, shown))
    flares = copy_rows(connection, flare, name, PRESENT, shown)
    for table in (tables.image, tables.location):
        _delete(connection, table, PRESENT)
    images = copy_rows(connection, tables.image, name, PRESENT)
    copy_rows(connection, tables.location, name, PRESENT)
    # A flare that is found again some day is to be imaged again: no mark may outlive its images.
    connection.execute(done.delete().where(done.c.release == PRESENT, done.c.stage == "images"))
    _replace_marks(connection, name)
    return flares, images


def _replace_marks(connection: sa.Connection, name: str, *conditions: sa.ColumnElement[bool]) -> None:
    done, theirs = tables.done, tables.done.alias()
    again = sa.exists().where(
        theirs.c.release == name, theirs.c.stage == done.c.stage, theirs.c.item == done.c.item, *conditions
    )
    connection.execute(done.delete().where(done.c.release == PRESENT, again))
    copy_rows(connection, done, name, PRESENT, *conditions)


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
    with writing(catalog._engine) as connection:
        row = _row(connection, name)
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
        _set(connection, name, switched=None, before=None)
        _set(connection, read_plan(row).shown_before, switched=tables.now_ns())
    return Switched(before, name, moved, added, removed, kept, flares, images)


def _count_newer(connection: sa.Connection, name: str) -> int:
    mine, now = tables.release_partition, tables.current
    same = sa.exists().where(mine.c.release == name, mine.c.partition_id == now.c.partition_id)
    return int(connection.execute(sa.select(sa.func.count()).select_from(now).where(sa.not_(same))).scalar_one())


def _return_pointers(connection: sa.Connection, name: str, before: str) -> tuple[int, int, int]:
    now, table = tables.current, tables.partition
    mine, theirs = tables.release_partition.alias("mine"), tables.release_partition.alias("theirs")
    ours = sa.exists().where(mine.c.release == name, mine.c.partition_id == now.c.partition_id)
    same = sa.and_(theirs.c.release == before, theirs.c.product == now.c.product, theirs.c.key == now.c.key)
    shown = sa.select(now.c.partition_id)
    earlier = set(connection.execute(shown).scalars())
    removed = connection.execute(now.delete().where(ours, sa.not_(sa.exists().where(same)))).rowcount
    span = {"partition_id": table.c.id, "start": table.c.start, "stop": table.c.stop}
    back = sa.and_(same, theirs.c.partition_id != now.c.partition_id, ours, table.c.id == theirs.c.partition_id)
    moved = connection.execute(now.update().where(back).values(**span, revision=now.c.revision + 1)).rowcount
    again = (
        sa.select(theirs.c.product, theirs.c.key, table.c.id, sa.literal(1), table.c.start, table.c.stop)
        .join(table, table.c.id == theirs.c.partition_id)
        .where(theirs.c.release == before, sa.not_(sa.exists().where(same)))
    )
    names = ["product", "key", "partition_id", "revision", "start", "stop"]
    added = count_rows(connection, now.insert().from_select(names, again))
    for ids in _pieces(sorted(earlier - set(connection.execute(shown).scalars()))):
        connection.execute(table.update().where(table.c.id.in_(ids)).values(state="superseded"))
    connection.execute(table.update().where(table.c.id.in_(shown)).values(state="published"))
    return moved, added, removed


def _return_findings(connection: sa.Connection, name: str, before: str) -> tuple[int, int]:
    flare, image, location, done = tables.flare, tables.image, tables.location, tables.done
    shown = flare.c.partition_id.in_(sa.select(tables.current.c.partition_id))
    pointers = tables.release_partition
    theirs = flare.c.partition_id.in_(sa.select(pointers.c.partition_id).where(pointers.c.release == before))
    connection.execute(flare.delete().where(flare.c.release == PRESENT, shown, theirs))
    flares = copy_rows(connection, flare, before, PRESENT, shown, theirs)
    # Each condition for itself: PostgreSQL asks an OR of subqueries row by row.
    left = image.alias()
    imaged = sa.exists().where(left.c.release == name, left.c.flare_id == image.c.flare_id)
    for gone in (image.c.flare_id.is_(None), imaged):
        connection.execute(image.delete().where(image.c.release == PRESENT, gone))
    has = sa.exists().where(left.c.release == PRESENT, left.c.image_id == image.c.image_id)
    images = copy_rows(connection, image, before, PRESENT, sa.not_(has))
    place = location.alias()
    earlier = sa.exists().where(place.c.release == before, place.c.flare_id == location.c.flare_id)
    connection.execute(location.delete().where(location.c.release == PRESENT, earlier))
    copy_rows(connection, location, before, PRESENT)
    marked = sa.exists().where(left.c.release == name, left.c.flare_id == done.c.item)
    connection.execute(done.delete().where(done.c.release == PRESENT, done.c.stage == "images", marked))
    _replace_marks(connection, before)
    return flares, images
