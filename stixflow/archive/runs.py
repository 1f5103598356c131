"""Runs: what is going on, what has been done, and how each ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.queries import Database, with_times
from stixflow.archive.tables import writing
from stixflow.archive.values import to_json
from stixflow.errors import NotFound, UsageError


class Runs(Database):
    """The part of the catalog that knows runs, and what stages have done in them."""

    def begin_run(self, run_id: str, command: str, *, code_version: str) -> None:
        """Record that a command has started."""
        values = {"run_id": run_id, "command": command, "code_version": code_version}
        with writing(self._engine) as connection:
            connection.execute(
                tables.run.insert().values(**values, state="running", started=tables.now_ns(), summary="{}")
            )

    def finish_run(self, run_id: str, *, state: str = "done", summary: Mapping[str, object] | None = None) -> None:
        """Record how a run ended: ``done`` or ``failed``, and its totals."""
        _check_choice("state", state, ("done", "failed"))
        change = tables.run.update().where(tables.run.c.run_id == run_id)
        with writing(self._engine) as connection:
            done = connection.execute(
                change.values(state=state, finished=tables.now_ns(), summary=to_json(summary or {}))
            )
        if not done.rowcount:
            raise NotFound(f"there is no run {run_id}", advice="begin it first")

    def runs(self) -> list[dict[str, Any]]:
        """Return every run, the latest first."""
        query = sa.select(tables.run).order_by(tables.run.c.started.desc(), tables.run.c.run_id.desc())
        return [with_times(row, "started", "finished", summary=True) for row in self._rows(query)]

    def mark_done(self, stage: str, items: Mapping[str, str], *, run_id: str) -> None:
        """Record that a stage has done items, each with the digest of what it was made from."""
        table = tables.done
        rows = [
            {"stage": stage, "item": item, "input_digest": digest, "run_id": run_id, "created": tables.now_ns()}
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


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", expected=" or ".join(choices), advice="correct it")
