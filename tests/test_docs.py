"""Pages that cannot rot: the tutorial runs, the data model page is the schema, links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PAGES = sorted([_ROOT / "README.md", _ROOT / "CHANGELOG.md", *(_ROOT / "docs").glob("*.md")])


def test_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every block, in order: shell blocks by bash, Python blocks in one namespace."""
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    blocks = _BLOCK.findall((_ROOT / "docs/tutorial.md").read_text())
    assert len(blocks) > 8
    namespace: dict[str, object] = {}
    for language, code in blocks:
        if language == "bash":
            command = ["bash", "-euo", "pipefail", "-c", code]
            done = subprocess.run(command, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        else:
            exec(compile(code, "docs/tutorial.md", "exec"), namespace)


def test_data_model_page_is_the_schema() -> None:
    sys.path.insert(0, str(_ROOT / "docs"))
    try:
        from make_data_model import data_model_page
    finally:
        sys.path.pop(0)
    assert (_ROOT / "docs/data-model.md").read_text() == data_model_page(), "run python docs/make_data_model.py"


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_readme_names_only_commands_that_exist() -> None:
    from stixflow.cli import command_names

    shell = "\n".join(
        code for language, code in _BLOCK.findall((_ROOT / "README.md").read_text()) if language == "bash"
    )
    used = set(re.findall(r"(?:^|bin/|&& )stixflow (\w+)", shell, re.MULTILINE))
    assert used
    assert used <= set(command_names())


def test_settings_example_is_valid() -> None:
    from stixflow.settings import load_settings

    settings = load_settings(_ROOT / "infra/stixflow.toml", environ={})
    assert settings.archive == "/srv/stixflow/archive"
