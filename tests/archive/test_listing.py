from __future__ import annotations

from pathlib import Path

import pytest
from example_delivery import DAYS

from stixflow.archive import Archive, open_archive
from stixflow.archive.listing import list_table
from stixflow.errors import UsageError


@pytest.fixture(scope="module")
def archive(processed: Path) -> Archive:
    return open_archive(processed)


def test_the_catalog_of_the_mission_is_one_row_a_partition(archive: Archive) -> None:
    frame = list_table(archive, "products")
    assert len(frame) == len(archive.catalog.partitions())
    assert frame["n_time"].sum() == archive.coverage()["n_time"].sum()
    day = list_table(archive, "products", "2022-06-16T00:01", "2022-06-17")
    assert set(day.loc[day["product"] == "ql_lightcurve", "key"]) == {DAYS[1]}


def test_files_know_their_days(archive: Archive) -> None:
    frame = list_table(archive, "files")
    assert len(frame) == len(archive.files())
    assert (frame["packets_in"] == frame["used"] + frame["duplicates"] + frame["rejected"]).all()
    light = frame[frame["name"].str.contains("30|light", regex=True) | frame["first_day"].notna()]
    assert str(light["first_day"].min())[:10] == DAYS[0]
    assert list_table(archive, "files", "2022-06-18")["name"].tolist() == []
    assert list_table(archive, "files", stop="2022-06-15")["name"].tolist() == []


def test_packets_by_product_and_day(archive: Archive) -> None:
    frame = list_table(archive, "packets")
    assert frame["packets"].sum() == sum(item.n_packets for item in archive.catalog.packet_sets())
    light = frame[frame["product"] == "ql_lightcurve"]
    assert light["key"].tolist() == list(DAYS)
    later = list_table(archive, "packets", DAYS[1])
    assert later.loc[later["product"] == "ql_lightcurve", "key"].tolist() == [DAYS[1]]


def test_what_is_no_table(archive: Archive) -> None:
    with pytest.raises(UsageError, match="no table 'soup'"):
        list_table(archive, "soup")
