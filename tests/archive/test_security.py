"""What comes from outside stays data: names, paths, sizes, markup, queries, passwords."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from example_archive import DAYS, add, day_of
from example_delivery import process
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stixflow.archive import (
    Archive,
    Catalog,
    FileEntry,
    PacketSet,
    Quarantined,
    collect,
    create_release,
    open_archive,
    store_path,
)
from stixflow.archive.layout import check_id, check_name, check_path, join_url
from stixflow.cli import main
from stixflow.cubes.files import LocalFiles
from stixflow.errors import NotFound, StixflowError, StoreError, UsageError, masked
from stixflow.stages.report import archive_status, format_status
from stixflow.telemetry import read_packets, read_tc_reports

_PACKAGE = Path(__file__).resolve().parents[2]
_SOURCES = sorted([*(_PACKAGE / "stixflow").rglob("*.py"), *(_PACKAGE / "flows").rglob("*.py")])

NASTY = (
    "../../etc/passwd", "/etc/passwd", "..", ".", "a/../../b", "a\\..\\b", "a//b", "", "a\0b", "a\nb", "C:/x",
    "s3://other/bucket", "file:///etc/passwd", "~root/.ssh", "$(id)", "a b", "x" * 300, "\u202eevil", "%2e%2e/x",
)  # fmt: skip
INJECTIONS = (
    "x' OR '1'='1", 'x" OR "1"="1', "x'; DROP TABLE partition; --", "x\\'; DELETE FROM run; --", "%", "_", "x');--",
)  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    made = open_archive(tmp_path / "archive", create=True)
    add(made, [day_of(DAYS[0], n_time=2)], DAYS[0])
    yield made
    made.close()


# Source ---------------------------------------------------------------------------------------------------------------

_FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
_FORBIDDEN_FUNCTIONS = {"os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
_FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


@pytest.mark.parametrize("path", _SOURCES, ids=lambda path: path.relative_to(_PACKAGE).as_posix())
def test_nothing_that_runs_what_it_reads(path: Path) -> None:
    """No pickles, no evaluated text, no shell, no SQL put together from values."""
    found = list(_dangers(ast.parse(path.read_text())))
    assert found == []


def _dangers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in _FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            yield from _danger_of_call(node)


def _danger_of_call(node: ast.Call) -> Iterator[str]:
    name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    if isinstance(node.func, ast.Name) and name in _FORBIDDEN_CALLS:
        yield name
    for keyword in node.keywords:
        if keyword.arg in ("allow_pickle", "shell") and getattr(keyword.value, "value", True):
            yield f"{name}({keyword.arg}=...)"
    if name in ("to_pickle", "read_pickle") or ast.unparse(node.func) in _FORBIDDEN_FUNCTIONS:
        yield name
    if (
        ast.unparse(node.func).endswith(("sa.text", "sqlalchemy.text", "exec_driver_sql"))
        and node.args
        and isinstance(node.args[0], ast.JoinedStr | ast.BinOp)
    ):
        # The definition of tables takes no parameters: migrations name their own there.
        is_definition = ast.unparse(node.args[0])[2:].startswith(("ALTER TABLE ", "DROP TABLE ", "DROP INDEX "))
        yield from () if is_definition else (f"{name} of text put together",)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "eval('1')", "np.load(f, allow_pickle=True)", "os.system('ls')",
        "subprocess.run('ls', shell=True)", "sa.text(f'SELECT {x}')", "c.exec_driver_sql('SELECT ' + x)",
    ],
)  # fmt: skip
def test_the_rules_see_violations(line: str) -> None:
    assert list(_dangers(ast.parse(line)))


# Paths and names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NASTY)
def test_no_name_from_outside_leaves_the_root(archive: Archive, tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))
    for refuse in (
        lambda: check_name(name),
        lambda: store_path("sci_pixels", name, DAYS[0], "R1"),
        lambda: store_path(name, "1-2", DAYS[0], "R1"),
        lambda: store_path("sci_pixels", "1-2", DAYS[0], name),
        lambda: create_release(archive.catalog, name, code_version="1"),
        lambda: open_archive(archive.root, release=name),
        lambda: archive.calibration(name),
        lambda: archive.map(name),
        lambda: archive.catalog.rollback(name, name),
        lambda: archive.cube(name, DAYS[0], DAYS[1]),
    ):
        with pytest.raises((UsageError, NotFound)):
            refuse()
    assert set(tmp_path.rglob("*")) == before


_ESCAPES = [name for name in NASTY if name not in ("~root/.ssh", "$(id)", "a b", "x" * 300, "\u202eevil", "%2e%2e/x")]


@pytest.mark.parametrize("path", _ESCAPES)
def test_no_path_that_leaves_the_root_is_recorded_or_read(archive: Archive, path: str) -> None:
    catalog = archive.catalog
    known = catalog.partitions()[0]
    refused = [
        lambda: check_path(path),
        lambda: archive.url(path),
        lambda: catalog.stage(replace_path(known, path)),
        lambda: catalog.replace_images({"f": [image_row("i", path)]}, run_id="R"),
        lambda: catalog.register_file(
            FileEntry("f", "a", "xml", 1), run_id="R", packet_sets=[PacketSet("hk_mini", "k", "d", path, 1, "f")]
        ),
    ]
    if path:
        refused.append(lambda: catalog.register_file(FileEntry("f", "a", "xml", 1, path=path), run_id="R"))
        refused.append(lambda: catalog.quarantine([Quarantined("a", "why", path=path)], run_id="R"))
    for refuse in refused:
        with pytest.raises(UsageError):
            refuse()
    assert (catalog.files(), catalog.packet_sets(), catalog.quarantined(), catalog.images()) == ([], [], [], [])


def replace_path(known: Any, path: str) -> Any:
    from dataclasses import replace

    return replace(known, path=path, run_id="R2")


def image_row(image_id: str, path: str) -> dict[str, object]:
    return {
        "image_id": image_id, "method": "bp", "energy_low": 4, "energy_high": 10,
        "start": DAYS[0], "stop": DAYS[1], "path": path, "digest": "d",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", "", ".hidden", "a\nb", "a\0b", "x" * 201])
def test_names_of_flares_and_images_are_no_paths(archive: Archive, name: str) -> None:
    day = archive.catalog.partitions()[0]
    flare = {"flare_id": name, "start": DAYS[0], "peak": DAYS[0], "stop": DAYS[1], "peak_counts": 1}
    for refuse in (
        lambda: check_id(name),
        lambda: archive.catalog.replace_flares(day.id, [flare]),
        lambda: archive.catalog.replace_images({"f": [image_row(name, "images/a.fits")]}, run_id="R"),
        lambda: archive.catalog.replace_images({name: [image_row("i", "images/a.fits")]}, run_id="R"),
    ):
        with pytest.raises(UsageError, match="cannot be a name"):
            refuse()


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_a_path_that_is_accepted_stays_below_the_root(path: str) -> None:
    try:
        joined = join_url("/srv/archive", path)
    except UsageError:
        return
    assert os.path.normpath(joined) == joined
    assert os.path.commonpath(["/srv/archive", joined]) == "/srv/archive"


def test_links_in_a_delivery_lead_nowhere_else(delivery: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "other.xml").write_bytes(next((delivery / "telemetry").iterdir()).read_bytes())
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    real = sorted((delivery / "telemetry").iterdir())[1]
    (inbox / "good.xml").write_bytes(real.read_bytes())
    (inbox / "within.xml").symlink_to(inbox / "good.xml")
    (inbox / "link.xml").symlink_to(secret / "other.xml")
    (inbox / "folder").symlink_to(secret)
    (inbox / "loop").symlink_to(inbox)
    os.mkfifo(inbox / "pipe")
    report = process(tmp_path / "archive", inbox, stages=["ingest"])
    assert report["counts"]["files"] == 1
    assert {(note["item"], "leads out" in note["reason"]) for note in report["skipped"]} == {
        ("link.xml", True), ("within.xml", False),
    }  # fmt: skip
    with pytest.raises(StixflowError, match="device or a pipe"):
        process(tmp_path / "archive", inbox / "pipe", stages=["ingest"])
    # What is named by the operator is read, wherever it is.
    assert process(tmp_path / "archive", inbox / "link.xml", stages=["ingest"])["counts"]["files"] == 1


def test_links_in_an_archive_are_removed_and_never_followed_by_the_collector(archive: Archive, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "manifest.json").write_text("precious")
    (outside / "data").write_text("precious")
    room = Path(archive.root) / "ql_lightcurve/v1/2022/11/08"
    (room / "R9.zarr").symlink_to(outside)
    (Path(archive.root) / "images").mkdir()
    (Path(archive.root) / "images" / "map.fits").symlink_to(outside / "data")
    (Path(archive.root) / "packets").symlink_to(outside)
    collect(archive, grace_days=0)
    collect(archive, grace_days=0)
    LocalFiles(room / "R9.zarr").remove(first="manifest.json")
    assert not (room / "R9.zarr").exists()
    assert {path.name: path.read_text() for path in outside.iterdir()} == {
        "manifest.json": "precious",
        "data": "precious",
    }
    assert archive.verify() == []


# SQL ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_no_filter_is_sql(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite:///{tmp_path / 'a.sqlite'}" if engine == "sqlite" else request.getfixturevalue("postgres_url")
    catalog = open_archive(tmp_path / "archive", catalog=url, create=True).catalog
    archive = open_archive(tmp_path / "archive", catalog=url)
    day = add(archive, [day_of(DAYS[0], n_time=2)], DAYS[0])
    flare = {"flare_id": "f", "start": DAYS[0], "peak": DAYS[0], "stop": DAYS[1], "peak_counts": 1}
    catalog.replace_flares(day.id, [flare])
    catalog.replace_images({"f": [image_row("i", "images/a.fits")]}, run_id="R1")
    before = contents(url)
    for text in INJECTIONS:
        assert catalog.partitions(text) == []
        assert catalog.partitions([text, text]) == []
        assert catalog.partitions(key=text) == []
        assert catalog.history(text, text) == []
        assert catalog.packet_sets(text, text) == []
        assert catalog.quarantined(text) == []
        assert catalog.flares(flare_id=text) == []
        assert catalog.images(text) == []
        assert catalog.images(image_id=text) == []
        assert catalog.done(text) == {}
        assert catalog.known_files([text]) == set()
        assert catalog.current(text, text) is None
        for refuse in (
            lambda text=text: catalog.partitions(start=text),
            lambda text=text: catalog.flares(text, text),
            lambda text=text: Catalog(url, release=text),
            lambda text=text: catalog.rollback(text, text),
            lambda text=text: catalog.finish_run(text),
            lambda text=text: archive.pixels(text),
            lambda text=text: archive.requests(kind=text),
        ):
            with pytest.raises((StixflowError, ValueError)):
                refuse()
    assert contents(url) == before
    # And it is kept as it is where it is data.
    for number, text in enumerate(INJECTIONS):
        catalog.begin_run(text, text, code_version=text)
        catalog.finish_run(text, summary={text: text})
        catalog.register_file(FileEntry(f"d{number}", text, text, 1, attrs={text: text}), run_id=text)
        catalog.mark_done(text, {text: text}, run_id=text)
        assert catalog.done(text) == {text: text}
    assert {row["name"] for row in catalog.files()} == set(INJECTIONS)
    assert {row["command"] for row in catalog.runs()} == set(INJECTIONS)
    archive.close()
    catalog.close()


def contents(url: str) -> dict[str, int]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = sa.inspect(connection).get_table_names()
        found = {
            name: connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar() or 0
            for name in names
        }
    engine.dispose()
    return found


# Markup and sizes -----------------------------------------------------------------------------------------------------

_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_BOMB = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "{"xy" * 50}">{_LAUGHS}]>'
_OUTER = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(("head", "text"), [(_BOMB, "&l9;"), (_OUTER, "&e;")], ids=["expanding", "external"])
def test_entities_of_xml_are_never_expanded(tmp_path: Path, head: str, text: str) -> None:
    packets = tmp_path / "a_PktTmRaw.xml"
    packets.write_text(f"{head}<PktRawResponse><Packet>{text}</Packet></PktRawResponse>")
    found = read_packets(packets)
    assert [entry.data for entry in found.rejected] == [text.encode()]
    reports = tmp_path / "a_PktTcReport.xml"
    name = f"<CommandName>{text}</CommandName>"
    reports.write_text(f"{head}<x><PktTcReportListElement>{name}</PktTcReportListElement></x>")
    told = read_tc_reports(reports)
    assert (told.reports, len(told.rejected)) == ((), 1)
    assert "entity" in told.rejected[0].reason
    inside = head.removeprefix('<?xml version="1.0"?>')
    reports.write_text(f"<x><PktTcReportListElement>{inside}{name}</PktTcReportListElement></x>")
    assert read_tc_reports(reports).reports == ()


def test_deep_and_long_markup(tmp_path: Path) -> None:
    deep = tmp_path / "deep_PktTcReport.xml"
    depth = 100_000
    body = "<a>" * depth + "</a>" * depth
    deep.write_text(f"<x><PktTcReportListElement>{body}<CommandName>A</CommandName></PktTcReportListElement></x>")
    assert [report.command for report in read_tc_reports(deep).reports] == ["A"]
    open_tags = tmp_path / "open_PktTmRaw.xml"
    open_tags.write_text("<PktRawResponse>" + "<Packet>" * 50_000 + "</Packet" * 10)
    assert len(read_packets(open_tags)) == 0


@pytest.mark.parametrize("kind", ["xml", "hex", "lines", "binary"])
def test_what_is_absurdly_long_takes_bounded_memory(delivery: Path, tmp_path: Path, kind: str) -> None:
    """One element, line or claimed packet of 60 MB, read in batches of 1 MB."""
    packet = read_packets(sorted((delivery / "telemetry").iterdir())[0]).packet_bytes(0).hex().encode()
    header = bytes([0x0D, 0xBC, 0x40, 0, 0xFF, 0xFF, 0x10, 21, 6, 0, 0, 0, 0, 0, 0, 0])
    long = {
        "xml": (b"<PktRawResponse><Packet>", b"ab", b"</Packet></PktRawResponse>"),
        "hex": (header.hex().encode(), b"0d", b""),
        "lines": (b"2022-01-01T00:00:00 " + packet + b"\n2022-01-01T00:00:01 ", b"ab", b""),
        "binary": (header, b"\xff\xff", b""),
    }[kind]
    path = tmp_path / "long"
    path.write_bytes(long[0] + long[1] * 30_000_000 + long[2])
    code = (
        "import sys\n"
        "from stixflow.compute.cost import peak_rss\n"
        "from stixflow.telemetry import iter_packets\n"
        "before = peak_rss()\n"
        "total = sum(len(one) for one in iter_packets(sys.argv[1], batch_bytes=1_000_000))\n"
        "print(total, peak_rss() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-500:]
    packets, grown = map(int, done.stdout.split())
    assert packets <= 1
    assert grown < 60_000_000


@pytest.mark.parametrize("rows", [10**15, 2**62, -5])
def test_tables_that_claim_absurd_sizes(tmp_path: Path, rows: int) -> None:
    """The header of a table may claim anything: the file is refused, or holds what is there."""
    from astropy.io import fits

    path = tmp_path / "lb.fits"
    table = fits.BinTableHDU.from_columns([fits.Column("data", "100A", array=["ab" * 50] * 3)], name="DATA")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    content = path.read_bytes()
    card = b"NAXIS2  =                    3"
    assert card in content
    path.write_bytes(content.replace(card, b"NAXIS2  = %20d" % rows))
    report = process(tmp_path / "archive", path, stages=["ingest"])
    assert [note["stage"] for note in report["failed"]] == ["ingest"]
    assert report["counts"] == {}


# Passwords ------------------------------------------------------------------------------------------------------------

SECRET = "s3cr3t"
_URLS = (
    f"postgresql+psycopg://stix:{SECRET}@127.0.0.1:1/none?connect_timeout=1",
    f"postgresql+psycopg://127.0.0.1:1/none?user=stix&password={SECRET}&connect_timeout=1",
    f"postgresql+psycopg://stix:{SECRET}@127.0.0.1:port/none",
    f"nosuch://stix:{SECRET}@host/none",
    f"nosuch+driver://stix:{SECRET}@host/none",
    f"://stix:{SECRET}@host/none",
    f"mysql://stix:{SECRET}@host/none",
)


@pytest.mark.parametrize("url", _URLS)
def test_passwords_of_catalogs_are_never_told(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--archive", str(tmp_path / "archive"), "--catalog", url]) in (1, 2)
    shown = capsys.readouterr()
    assert shown.err.startswith("stixflow: ")
    assert SECRET not in shown.out + shown.err
    with pytest.raises((UsageError, StoreError)) as told:
        open_archive(tmp_path / "archive", catalog=url, create=True)
    assert SECRET not in str(told.value) + repr(told.value)


def test_passwords_are_told_by_neither_status_nor_report(delivery: Path, tmp_path: Path, postgres_url: str) -> None:
    url = postgres_url.replace("stix@", f"stix:{SECRET}@")
    root = tmp_path / "archive"
    from stixflow.compute import Serial
    from stixflow.stages import run_stages

    file = sorted((delivery / "telemetry").iterdir())[0]
    report = run_stages(["ingest"], [file], root=str(root), pool=Serial(), command="test", catalog=url)
    status = archive_status(str(root), catalog=url)
    archive = open_archive(root, catalog=url)
    shown = [report, status, format_status(status), repr(archive), repr(archive.catalog), archive.runs().to_json()]
    assert SECRET not in json.dumps(shown, default=str)
    assert "stix:***@127.0.0.1" in format_status(status)
    archive.close()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://key:abc@bucket/x", "s3://key:***@bucket/x"),
        ("no secret at https://host:8080/a b@c", "no secret at https://host:8080/a b@c"),
        ("postgresql://u:p@s/s@host/db and x://a:b@c", "postgresql://u:***@host/db and x://a:***@c"),
        ("x://h/d?user=a&password=b&z=1", "x://h/d?user=a&password=***&z=1"),
        ("plain text: nothing", "plain text: nothing"),
    ],
)
def test_masking(text: str, shown: str) -> None:
    assert masked(text) == shown
    assert str(StoreError(text)) == f"{shown}."


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=20))
def test_no_password_survives_masking(secret: str) -> None:
    assert f":{secret}@" not in masked(f"postgresql+psycopg://stix:{secret}@host/db")
