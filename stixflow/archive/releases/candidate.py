"""Candidates: open releases that are built beside what readers see; begun, gone on with, and validated.

A candidate has pointers, flares, images and marks of its own, which the catalog of an open release writes. What lies
outside its scope it takes over (`taking`); once it is validated, readers are switched to it (`switching`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stixflow.archive import tables
from stixflow.archive.catalog import Catalog
from stixflow.archive.releases.kept import change_release, check_release_name, check_state, find_release, known_release
from stixflow.archive.releases.plan import CandidatePlan, Scope, plan_text, read_plan
from stixflow.archive.tables import delete_rows
from stixflow.archive.transactions import reading, writing
from stixflow.archive.values import to_json
from stixflow.errors import UsageError


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
    with writing(catalog.engine) as connection:
        row = known_release(connection, name)
        plan = CandidatePlan(scope, dict(made_by))
        if row is None:
            values = {"name": name, "note": note, "code_version": made_by.get("code", ""), "state": "open"}
            connection.execute(
                tables.release.insert().values(**values, created=tables.now_ns(), plan=plan_text(plan), report="{}")
            )
            return True
        _check_same(name, row, plan, restart=restart)
        if read_plan(row).made_by != made_by:
            for table in tables.FINDINGS:
                delete_rows(connection, table, name)
            change_release(connection, name, state="open", plan=plan_text(plan), code_version=made_by.get("code", ""))
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


def candidate_plan(catalog: Catalog, name: str) -> CandidatePlan:
    """Return what an open release is to be."""
    with reading(catalog.engine) as connection:
        return read_plan(find_release(connection, name))


def mark_validated(catalog: Catalog, name: str, report: Mapping[str, Any], *, passed: bool) -> None:
    """Keep the report of a validation with an open release, and whether it may be switched to."""
    with writing(catalog.engine) as connection:
        check_state(name, find_release(connection, name)["state"], ("open", "validated"))
        change_release(connection, name, state="validated" if passed else "open", report=to_json(report))
