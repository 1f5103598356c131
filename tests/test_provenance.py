from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

import stixflow
from stixflow.provenance import code_version, input_digest, new_run_id, record


def test_code_version_is_stable_and_says_the_version() -> None:
    assert code_version() == code_version()
    assert code_version().startswith(f"{stixflow.__version__}+")


@given(st.lists(st.text("0123456789abcdef", min_size=1), max_size=6), st.randoms())
def test_input_digest_knows_no_order(digests: list[str], random: object) -> None:
    shuffled = digests * 2
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert input_digest(shuffled) == input_digest(digests)


def test_input_digest_knows_its_inputs() -> None:
    assert len({input_digest(digests) for digests in ([], ["a"], ["b"], ["a", "b"], ["ab"])}) == 5


def test_run_ids_sort_by_time() -> None:
    made = [new_run_id() for _ in range(200)]
    assert len(set(made)) == 200
    assert [run_id[:10] for run_id in made] == sorted(run_id[:10] for run_id in made)
    assert {len(run_id) for run_id in made} == {26}


def test_the_record_names_no_machine() -> None:
    text = json.dumps(record("stixflow demo"))
    assert "zarr" in text
    for word in (socket.gethostname(), os.getcwd(), getpass.getuser() + "@"):
        assert word not in text


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import stixflow, sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"numpy", "xarray", "pandas", "sqlalchemy", "zarr", "distributed", "prefect"} & set(loaded)
    assert stixflow.open_archive.__name__ == "open_archive"
    assert {"open_archive", "Archive", "__version__"} <= set(dir(stixflow))
