"""The rings and the only-user rules: who may import what, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_SOURCES = sorted([*(_ROOT / "stixflow").rglob("*.py"), *(_ROOT / "flows").rglob("*.py")])

_SCIENCE = (
    "telemetry", "instrument", "cubes/build", "fits", "flares", "hessi", "imaging", "ephemeris", "previews", "simulate",
    "calibration",
)  # fmt: skip
_SCIENCE_FILES = ("time.py", "errors.py", "cubes/model.py", "cubes/assemble.py", "cubes/check.py")

# Package -> the only places that may import it.
_ONLY_USERS = {
    "prefect": ("flows/",),
    "distributed": ("stixflow/compute/",),
    "dask_jobqueue": ("stixflow/compute/",),
    "dask_kubernetes": ("stixflow/compute/",),
    "dask": ("stixflow/compute/", "stixflow/cubes/store/"),
    "sqlalchemy": ("stixflow/archive/",),
    "zarr": ("stixflow/cubes/store/",),
    "s3fs": ("stixflow/cubes/store/",),
    "flows": ("flows/", "stixflow/cli/", "stixflow/demo.py"),
}
_NOT_IN_SCIENCE = {"dask", "distributed", "prefect", "sqlalchemy", "zarr", "s3fs", "flows", "pydantic"}
_OUTER_ROOMS = {
    "archive", "settings", "compute", "jobs", "stages", "provenance", "cli", "demo", "single", "cubes.store",
}  # fmt: skip


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _place(path: Path) -> str:
    return path.relative_to(_ROOT).as_posix()


def _is_science(place: str) -> bool:
    inner = place.removeprefix("stixflow/")
    return inner != place and (inner.startswith(tuple(f"{room}/" for room in _SCIENCE)) or inner in _SCIENCE_FILES)


@pytest.mark.parametrize("path", _SOURCES, ids=_place)
def test_only_users(path: Path) -> None:
    place = _place(path)
    for name in _imports(path):
        allowed = _ONLY_USERS.get(name.split(".")[0])
        assert allowed is None or place.startswith(allowed), f"{place} imports {name}; only {allowed} may"


@pytest.mark.parametrize("path", [p for p in _SOURCES if _is_science(_place(p))], ids=_place)
def test_science_ring_points_inwards(path: Path) -> None:
    for name in _imports(path):
        assert name.split(".")[0] not in _NOT_IN_SCIENCE, f"{_place(path)} is science and imports {name}"
        room = name.removeprefix("stixflow.")
        assert room == name or not any(room == outer or room.startswith(outer + ".") for outer in _OUTER_ROOMS), (
            f"{_place(path)} is science and imports the outer room {name}"
        )


def test_jobs_and_archive_do_not_know_the_edges() -> None:
    for place in ("jobs", "stages", "compute", "archive", "cubes"):
        target = _ROOT / "stixflow" / place
        for path in sorted(target.rglob("*.py")) if target.is_dir() else [target]:
            assert not any(name.startswith(("stixflow.cli", "stixflow.demo", "flows")) for name in _imports(path)), path


def test_nothing_imports_in_a_circle() -> None:
    """Of what a module imports when it is imported itself; functions and the type checker may look back."""
    modules = {_module(path) for path in _SOURCES}
    known = {_module(path): set(_imported_at_once(path, modules)) - {_module(path)} for path in _SOURCES}
    assert set(TopologicalSorter(known).static_order()) == modules


def test_private_names_stay_in_their_module() -> None:
    modules = {_module(path) for path in _SOURCES}
    for path in _SOURCES:
        for name in _imports(path):
            last = name.rpartition(".")[2]
            if name.startswith(("stixflow.", "flows.")) and name not in modules:
                assert not last.startswith("_") or last == "__version__", f"{_place(path)} imports {name}"


def _module(path: Path) -> str:
    return _place(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imported_at_once(path: Path, modules: set[str]) -> Iterator[str]:
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from ({name if name in modules else node.module for name in names}) & modules


def test_the_rules_see_violations() -> None:
    assert not _is_science("stixflow/cli/care.py")
    assert not _is_science("flows/process.py")
    assert _is_science("stixflow/imaging/clean.py")
    assert "prefect" not in _imports(_ROOT / "stixflow/errors.py")
    assert {"prefect", "prefect.flow"} & set(_imports(_ROOT / "flows/process.py"))


def test_no_empty_rooms_and_no_catch_all_modules() -> None:
    names = {path.stem for path in _SOURCES}
    assert not names & {"utils", "helpers", "base", "manager", "managers", "common", "misc"}
    for folder in {path.parent for path in _SOURCES}:
        modules = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert modules or (folder / "__init__.py").read_text().strip(), folder


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import stixflow", ["numpy", "xarray", "zarr", "astropy", "pandas", "sqlalchemy"]),
        ("import stixflow.cli", ["numpy", "xarray", "zarr", "astropy", "prefect", "distributed", "sqlalchemy"]),
        ("import stixflow.telemetry", ["xarray", "pandas", "astropy", "scipy", "zarr"]),
        ("import stixflow.imaging", ["matplotlib", "sunpy", "distributed", "zarr"]),
    ],
)
def test_imports_stay_light(statement: str, absent: list[str]) -> None:
    code = f"{statement}\nimport sys\nprint([m for m in {absent!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
