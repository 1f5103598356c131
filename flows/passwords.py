"""The password of a catalog never becomes a parameter of a flow: Prefect keeps parameters and shows them."""

from __future__ import annotations

import re

from stixflow.errors import UsageError, masked
from stixflow.settings import load_settings

_ADVICE = "put the whole URL into STIXFLOW_CATALOG where flows run, or the password into ~/.pgpass there (PGPASSFILE)"


def without_password(url: str) -> str:
    """Return a URL without its password, wherever in it that stands."""
    shown = masked(url).replace(":***@", "@")
    return re.sub(r"([?&])[^?&=]+=\*\*\*(&?)", lambda found: found[1] if found[2] else "", shown)


def refuse_password(url: str | None, what: str) -> None:
    """Refuse a URL with a password.

    Raises
    ------
    UsageError
        If it has one.
    """
    if url is not None and without_password(url) != url:
        raise UsageError(
            f"{what} has a password",
            expected="a URL without one: Prefect keeps the parameters of flows and shows them",
            advice=_ADVICE,
        )


def with_password(catalog: str | None) -> str | None:
    """Return the URL by which to open a catalog that a parameter of a flow names.

    It is that of the setting `catalog` of this process where both are the same but for the password.

    Raises
    ------
    UsageError
        If the parameter has a password itself.
    """
    refuse_password(catalog, "the parameter `catalog`")
    own = load_settings().catalog
    return own if own is not None and without_password(own) == catalog else catalog
