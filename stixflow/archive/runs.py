"""Runs: what is going on, what has been done, and how each ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa

from stixflow.archive import tables
from stixflow.archive.liveness import BEAT_S, is_alive, this_process
from stixflow.archive.queries import Database, chunks, with_times
from stixflow.archive.transactions import reading, writing
from stixflow.archive.values import to_json
from stixflow.errors import NotFound, StoreError, UsageError


class Runs(Database):
    """The part of the catalog that knows runs, and what stages have done in them."""

    def begin_run(self, run_id: str, command: str, *, code_version: str) -> None:
        """Record that a command has started, and mark as ``dead`` the runs that have ended without saying so."""
        now = tables.now_ns()
        values = {"run_id": run_id, "command": command, "code_version": code_version, "started": now, "seen": now}
        with writing(self.engine) as connection:
            _bury(connection, now)
            connection.execute(tables.run.insert().values(**values, **this_process(), state="running", summary="{}"))

    @contextmanager
    def kept_alive(self, run_id: str, *, every_s: float = BEAT_S) -> Iterator[None]:
        """Say every so often, from a thread of its own, that a run goes on, for a ``with`` block."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(every_s):
                # A catalog that does not answer is the trouble of the run itself, at its next write.
                with suppress(StoreError, sa.exc.SQLAlchemyError):
                    self.see_run(run_id)

        thread = threading.Thread(target=beat, name=f"run {run_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def see_run(self, run_id: str) -> None:
        """Record that a run goes on, also if it was taken for dead."""
        table = tables.run
        mine = sa.and_(table.c.run_id == run_id, table.c.state.in_(("running", "dead")))
        with writing(self.engine) as connection:
            connection.execute(table.update().where(mine).values(state="running", seen=tables.now_ns(), finished=None))

    def finish_run(self, run_id: str, *, state: str = "done", summary: Mapping[str, object] | None = None) -> None:
        """Record how a run ended: ``done`` or ``failed``, and its totals."""
        _check_choice("state", state, ("done", "failed"))
        change = tables.run.update().where(tables.run.c.run_id == run_id)
        with writing(self.engine) as connection:
            done = connection.execute(
                change.values(state=state, finished=tables.now_ns(), summary=to_json(summary or {}))
            )
        if not done.rowcount:
            raise NotFound(f"there is no run {run_id}", advice="begin it first")

    def runs(self) -> list[dict[str, Any]]:
        """Return every run, the latest first; one that has ended without saying so is ``dead``."""
        query = sa.select(tables.run).order_by(tables.run.c.started.desc(), tables.run.c.run_id.desc())
        now = tables.now_ns()
        return [_read_run(row, now) for row in self._rows(query)]

    def mark_done(self, stage: str, items: Mapping[str, str], *, run_id: str) -> None:
        """Record that a stage has done items, each with the digest of what it was made from."""
        table = tables.done
        rows = [
            {"stage": stage, "item": item, "input_digest": digest, "run_id": run_id, "created": tables.now_ns()}
            | {"release": self._scope}
            for item, digest in items.items()
        ]
        with self._writing() as connection:
            for some in chunks(list(items)):
                mine = sa.and_(table.c.release == self._scope, table.c.stage == stage, table.c.item.in_(some))
                connection.execute(table.delete().where(mine))
            if rows:
                connection.execute(table.insert(), rows)

    def done(self, stage: str) -> dict[str, str]:
        """Return what a stage has done: the digest of its inputs by item."""
        table = tables.done
        mine = sa.and_(table.c.release == self._scope, table.c.stage == stage)
        query = sa.select(table.c.item, table.c.input_digest).where(mine)
        return {row["item"]: row["input_digest"] for row in self._rows(query)}


def active_runs(source: sa.Engine | sa.Connection) -> list[str]:
    """Return the runs that go on, by name."""
    if isinstance(source, sa.Engine):
        with reading(source) as connection:
            return active_runs(connection)
    now = tables.now_ns()
    return sorted(row["run_id"] for row in _running(source) if is_alive(row, now))


def _running(connection: sa.Connection) -> list[dict[str, Any]]:
    query = sa.select(tables.run).where(tables.run.c.state == "running")
    return [dict(row) for row in connection.execute(query).mappings()]


def _bury(connection: sa.Connection, now: int) -> None:
    for row in _running(connection):
        if not is_alive(row, now):
            mine = tables.run.update().where(tables.run.c.run_id == row["run_id"])
            connection.execute(mine.values(state="dead", finished=row["seen"]))


def _read_run(row: dict[str, Any], now: int) -> dict[str, Any]:
    if row["state"] == "running" and not is_alive(row, now):
        row |= {"state": "dead", "finished": row["seen"]}
    del row["process"]
    return with_times(row, "started", "finished", "seen", summary=True)


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", expected=" or ".join(choices), advice="correct it")
