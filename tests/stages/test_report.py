"""The report of a run as text."""

from __future__ import annotations

from stixflow.stages import format_report

BOOKS = {"packets_in": 0, "used": 0, "duplicates": 0, "rejected": 0}


def _text(skipped: list[dict[str, str]]) -> list[str]:
    report = {
        "run_id": "R", "archive": "/a", "balance": BOOKS, "counts": {"files": 2, "images": 0}, "seconds": {},
        "not_decoded_yet": {}, "skipped": skipped, "failed": [],
    }  # fmt: skip
    return format_report(report).splitlines()


def test_what_is_said_alike_of_many_is_one_line() -> None:
    known = [{"stage": "ingest", "item": f"{n}.xml", "reason": "already ingested"} for n in range(15)]
    other = {"stage": "images", "item": "flare 1", "reason": "nothing but background"}
    lines = _text([*known, other])
    assert lines[-2:] == [
        "skipped   ingest: 0.xml and 14 others: already ingested",
        "skipped   images: flare 1: nothing but background",
    ]
    assert "skipped   ingest: 0.xml, 1.xml: already ingested" in _text(known[:2])
    assert "done      2 files" in lines


def test_a_long_report_says_what_it_leaves_out() -> None:
    lines = _text([{"stage": "images", "item": str(n), "reason": f"reason {n}"} for n in range(30)])
    assert lines[-1] == "skipped   and 10 more (--json lists all)"
