"""What breaks around a run while it goes on: it ends right, or it stops clean and the next run makes it whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed  # noqa: F401  # its defaults must be there before one is changed
import pytest
from example_delivery import assert_balanced, flare_rows, published
from example_poison import POISON
from services.postgres import Postgres
from services.s3 import Bucket

from stixflow.archive import open_archive
from stixflow.compute import Pool, Serial, open_cluster
from stixflow.errors import StixflowError
from stixflow.stages import STAGES, run_stages

Hook = Callable[[str, int, int], None]


def _run(root: str, delivery: Path, pool: Pool, *, catalog: str | None = None, hook: Hook | None = None) -> Any:
    report = run_stages(STAGES, [delivery], root=root, pool=pool, catalog=catalog, command="test", progress=hook)
    assert_balanced(report["balance"])
    return report


def _problems(root: str, delivery: Path, catalog: str, hook: Hook) -> list[str]:
    """What a run says that goes wrong: in its report, or where it stops."""
    try:
        return [item["error"] for item in _run(root, delivery, Serial(), catalog=catalog, hook=hook)["failed"]]
    except StixflowError as error:
        return [str(error)]


class _Once:
    """Act once, in the middle of a stage."""

    def __init__(self, stage: str, act: Callable[[], None]) -> None:
        self.stage, self.act, self.acted = stage, act, False

    def __call__(self, name: str, done: int, total: int) -> None:
        if name == self.stage and done == total // 2 and not self.acted:
            self.acted = True
            self.act()


def _assert_same(root: str, processed: Path, catalog: str | None = None) -> None:
    one, other = open_archive(root, catalog=catalog), open_archive(processed)
    mine = {f"{p.product} {p.key}": (p.digest, p.n_time, p.counts_sum) for p in one.catalog.partitions()}
    assert mine == published(processed)
    assert flare_rows(one) == flare_rows(other)
    digests = [{row["image_id"]: row["digest"] for row in archive.catalog.images()} for archive in (one, other)]
    assert digests[0] == digests[1]
    assert one.verify() == []
    one.close()
    other.close()


@pytest.mark.parametrize("stage", ["cubes", "images"])
def test_a_database_that_is_restarted_in_the_middle(
    stage: str, postgres: Postgres, delivery: Path, processed: Path, tmp_path: Path
) -> None:
    """Between two transactions nobody notices."""
    root, url = str(tmp_path / "archive"), postgres.new_database()
    restart = _Once(stage, postgres.restart)
    assert _run(root, delivery, Serial(), catalog=url, hook=restart)["failed"] == []
    assert restart.acted
    _assert_same(root, processed, url)


def test_a_database_that_is_gone_for_longer_than_a_run_waits(
    postgres: Postgres, delivery: Path, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stixflow.archive.transactions._RESTART_S", 0.5)
    root, url = str(tmp_path / "archive"), postgres.new_database()
    with pytest.raises(StixflowError, match="the catalog does not answer"):
        _run(root, delivery, Serial(), catalog=url, hook=_Once("cubes", postgres.stop))
    postgres.start()
    assert _run(root, delivery, Serial(), catalog=url)["failed"] == []
    _assert_same(root, processed, url)


@pytest.mark.parametrize("stage", ["ingest", "cubes", "images"])
def test_a_bucket_that_refuses_for_a_while(
    stage: str, s3: Bucket, delivery: Path, processed: Path, tmp_path: Path
) -> None:
    """What could not be written is listed as failed, or the run stops and says why; the next run does the rest."""
    root, catalog = f"{s3.url}/archive", f"sqlite:///{tmp_path / 'catalog.db'}"
    with s3.failing(lambda *_: False):

        def refuse() -> None:
            s3.refuse = lambda method, _: method in ("PUT", "POST")

        problems = _problems(root, delivery, catalog, _Once(stage, refuse))
    assert problems
    assert all("refuses" in problem for problem in problems)
    assert _run(root, delivery, Serial(), catalog=catalog)["failed"] == []
    _assert_same(root, processed, catalog)


@pytest.mark.cluster
@pytest.mark.long
@pytest.mark.parametrize("poison", ["deadly", "hungry"])
def test_input_that_kills_workers_or_fills_their_memory(
    poison: str, delivery: Path, processed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, everything else is done; where it does no harm any more, the next run makes it."""
    root = str(tmp_path / "archive")
    monkeypatch.setenv("STIXFLOW_TEST_POISON", poison)
    preload = {"distributed.worker.preload": ["example_poison"]}
    with dask.config.set(preload), open_cluster(2, memory_limit="700MB") as pool:
        report = _run(root, delivery, pool)
    (lost,) = report["failed"]
    assert (lost["stage"], lost["item"]) == ("cubes", " ".join(POISON))
    assert "worker was lost" in lost["error"]
    assert published(processed).keys() - published(Path(root)).keys() == {" ".join(POISON)}
    assert _run(root, delivery, Serial())["failed"] == []
    _assert_same(root, processed)
