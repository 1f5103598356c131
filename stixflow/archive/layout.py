"""Names and places inside an archive: partition keys, store paths; nothing from outside ever leaves the root."""

from __future__ import annotations

import re
from datetime import date

from stixflow.cubes.model import DATA_MODEL_VERSION, PRODUCTS
from stixflow.errors import UsageError

CATALOG_NAME = "catalog.sqlite"
DERIVED = "derived"
"""First folder, and stage of the catalog, of what is made from published stores and can be made again."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,79}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_ID = 200


def day_key(day: date) -> str:
    """Return the key of a day's partition, ``2021-06-06``."""
    return day.isoformat()


def is_day_key(key: str) -> bool:
    """Tell whether a key is that of a day's partition."""
    year, dash, rest = key.partition("-")
    return len(key) == 10 and len(year) == 4 and bool(dash) and rest[2:3] == "-"


def request_key(request_id: int, seq_control: int | None) -> str:
    """Return the key of a request's partition, ``2211090305-54678``."""
    return f"{int(request_id)}-{0 if seq_control is None else int(seq_control)}"


def run_key(start: int, duration: int) -> str:
    """Return the key of a calibration run's partition, onboard start and duration: ``659318519-84000``."""
    return f"{int(start)}-{int(duration)}"


def store_path(product: str, key: str, day: date, run_id: str) -> str:
    """Return where a partition's store lies below the root: ``{product}/v1/2022/11/09/[{key}/]{run_id}.zarr``."""
    if product not in PRODUCTS:
        raise UsageError(f"{product!r} is not a product", expected=", ".join(PRODUCTS), advice="correct the name")
    parts = [product, f"v{DATA_MODEL_VERSION}", f"{day:%Y/%m/%d}"]
    if PRODUCTS[product].partition != "day":
        parts.append(check_name(key))
    return "/".join([*parts, f"{check_name(run_id)}.zarr"])


def check_name(name: str) -> str:
    """Return a name that is one plain path component; refuse any other."""
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be part of a path", expected="letters, digits, - _ +", advice="correct where it came from"
        )
    return name


def check_path(path: str) -> str:
    """Return a path that stays below the root it will be joined to; refuse any other."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or _CONTROL.search(path) or {"", ".", ".."} & set(parts) or ":" in parts[0]:
        raise UsageError(f"{path!r} leaves the archive", expected="a path below its root", advice="correct the path")
    return path


def check_id(name: object) -> str:
    """Return the name of a flare or an image, which becomes a part of file names; refuse what could be a path."""
    text = str(name)
    if not text or len(text) > _LONGEST_ID or text.startswith(".") or _CONTROL.search(text) or {"/", "\\"} & set(text):
        raise UsageError(
            f"{text[:_LONGEST_ID]!r} cannot be a name", expected="text without / or \\", advice="correct its source"
        )
    return text


def join_url(root: str, path: str) -> str:
    """Return the full URL of a path below `root`."""
    return f"{root.rstrip('/')}/{check_path(path)}"
