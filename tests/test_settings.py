from __future__ import annotations

import os
from pathlib import Path

import pydantic
import pytest

from stixflow.errors import MissingFile, UsageError
from stixflow.settings import Settings, load_settings


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "stixflow.toml"
    path.write_text('archive = "from-file"\nworkers = 2\nmemory_limit = "1GB"\n')
    return path


def test_argument_over_environment_over_file_over_default(config: Path) -> None:
    environ = {"STIXFLOW_WORKERS": "3", "STIXFLOW_MEMORY_LIMIT": "3GB", "OTHER": "x"}
    found = load_settings(config, environ=environ, memory_limit="4GB", catalog=None)
    assert found == Settings(archive="from-file", workers=3, memory_limit="4GB", catalog=None, serial=False)


def test_the_file_of_the_current_folder_is_read(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.parent)
    assert load_settings(environ={}).archive == "from-file"


def test_nothing_given_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ={"STIXFLOW_WORKERS": ""}) == Settings()


def test_every_problem_is_named_with_its_origin(config: Path) -> None:
    config.write_text('archive = "x"\nsoup = 1\n')
    with pytest.raises(UsageError) as caught:
        load_settings(config, environ={"STIXFLOW_WORKERS": "many"}, tuning=1)
    for part in ("soup from", "stixflow.toml", "workers from the environment", "tuning from the arguments"):
        assert part in str(caught.value)


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        load_settings(tmp_path / "none.toml", environ={})
    (tmp_path / "bad.toml").write_text("archive = ")
    with pytest.raises(UsageError, match="is not TOML"):
        load_settings(tmp_path / "bad.toml", environ={})


def test_settings_do_not_change() -> None:
    with pytest.raises(pydantic.ValidationError):
        Settings().workers = 3  # type: ignore[misc]


def test_several_clock_kernels_from_the_environment_and_a_file(tmp_path: Path) -> None:
    config = tmp_path / "here.toml"
    config.write_text('clock_kernels = ["a.tsc", "b.tls"]\n')
    assert load_settings(config, environ={}).clock_kernels == ("a.tsc", "b.tls")
    environ = {"STIXFLOW_CLOCK_KERNELS": os.pathsep.join(["c.tsc", "d.tls"])}
    assert load_settings(config, environ=environ).clock_kernels == ("c.tsc", "d.tls")
    assert load_settings(config, environ=environ, clock_kernels=["e"]).clock_kernels == ("e",)
