from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stixflow.archive.layout import check_path, day_key, join_url, request_key, store_path
from stixflow.errors import UsageError

DAY = date(2022, 11, 9)


def test_places_of_stores() -> None:
    assert store_path("ql_lightcurve", day_key(DAY), DAY, "R1") == "ql_lightcurve/v1/2022/11/09/R1.zarr"
    key = request_key(2211090305, 54678)
    assert store_path("sci_pixels", key, DAY, "R1") == "sci_pixels/v1/2022/11/09/2211090305-54678/R1.zarr"
    assert request_key(7, None) == "7-0"


@pytest.mark.parametrize("name", ["..", "a/b", "", "/etc", "a\\b", ".hidden", "x" * 99, "a\n"])
def test_names_from_outside_stay_inside(name: str) -> None:
    with pytest.raises(UsageError):
        store_path("sci_pixels", name, DAY, "R1")
    with pytest.raises(UsageError):
        store_path("sci_pixels", "1-2", DAY, name)
    with pytest.raises(UsageError):
        store_path(name, "1-2", DAY, "R1")


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", "a//b", "", "s3://b/c", "a\\..\\b", "a/./b"])
def test_paths_from_outside_stay_inside(path: str) -> None:
    with pytest.raises(UsageError, match="leaves the archive"):
        check_path(path)


@given(st.text("ab./\\:", max_size=12))
def test_a_joined_path_is_below_its_root(path: str) -> None:
    try:
        joined = join_url("s3://bucket/root/", path)
    except UsageError:
        return
    assert joined == f"s3://bucket/root/{path}"
    assert ".." not in joined.split("/")
