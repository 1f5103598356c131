"""Where the files of the HESSI catalog are."""

from __future__ import annotations

import os
from pathlib import Path

from stixflow.errors import NotFound

_ARCHIVE_VARIABLE = "HSI_DATA_ARCHIVE"


def archive_root(data_dir: str | Path | None = None) -> Path:
    """Folder of the archive: `data_dir`, or the environment variable HSI_DATA_ARCHIVE.

    Raises
    ------
    NotFound
        If neither is given.
    """
    named = data_dir or os.environ.get(_ARCHIVE_VARIABLE)
    if not named:
        raise NotFound(
            "no HESSI archive is named",
            expected=f"the environment variable {_ARCHIVE_VARIABLE}",
            advice="set it, or give data_dir or a filename",
        )
    return Path(named)
