from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from example_archive import DAYS, day_of, with_days

from stixflow.archive import Archive, Partition
from stixflow.cubes.store import delete_store, write_store
from stixflow.errors import StoreError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return with_days(tmp_path / "archive")


class TestVerify:
    def test_a_sound_archive_has_no_defect(self, archive: Archive) -> None:
        assert archive.verify() == []
        assert archive.lost() == []

    def test_every_defect_is_found(self, archive: Archive) -> None:
        gone, flipped, other = archive.catalog.partitions()
        delete_store(archive.url(gone.path))
        shard = Path(archive.url(flipped.path)) / "0" / "counts" / "c.0.0"
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
        delete_store(archive.url(other.path))
        write_store(archive.url(other.path), [day_of(DAYS[2], seed=77)])
        found = {defect.url: defect.problem for defect in archive.verify()}
        assert "never completed" in found[archive.url(gone.path)]
        assert "SHA-256" in found[archive.url(flipped.path)]
        assert "has the digest" in found[archive.url(other.path)]
        assert archive.lost() == [gone]
        assert [item.url for item in archive.verify([gone])] == [archive.url(gone.path)]
        with pytest.raises(StoreError, match="never completed"):
            archive.lightcurves("2022-11-08", "2022-11-09")

    def test_a_catalog_that_counts_otherwise(self, archive: Archive) -> None:
        sound = archive.catalog.partitions()[0]
        partition_id = archive.catalog.stage(_renamed(archive, sound, counts_sum=1, n_time=25))
        archive.catalog.publish(partition_id)
        problems = {defect.problem for defect in archive.verify()}
        assert "the store has 24 time bins, the catalog 25" in problems
        assert f"the store has {sound.counts_sum} counts, the catalog 1" in problems


def _renamed(archive: Archive, sound: Partition, **changes: object) -> Partition:
    path = sound.path.replace("R1", "R2")
    write_store(archive.url(path), [day_of(DAYS[0])])
    return replace(sound, path=path, run_id="R2", **changes)  # type: ignore[arg-type]
