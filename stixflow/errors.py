"""The errors of stixflow: one tree, each class also the builtin a caller would catch.

Every message has three parts: what was found, what was expected, what to do.
"""

from __future__ import annotations

import re

_SECRETS = (
    (re.compile(r"(://[^\s:/@]*):\S*@"), r"\1:***@"),
    (re.compile(r"(?i)([?&](?:password|passwd|pwd|secret|token|sslpassword)=)[^\s&]*"), r"\1***"),
)


def masked(text: str) -> str:
    """Return a text without the passwords of the URLs in it, fit for logs, reports and messages."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text


class StixflowError(Exception):
    """Root of all errors that stixflow raises on purpose; `exit_code` drives the command line.

    Messages never tell the password of a URL.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str = "", advice: str = "") -> None:
        self.found, self.expected, self.advice = masked(found), masked(expected), masked(advice)
        super().__init__(self.found, self.expected, self.advice)

    def __str__(self) -> str:
        parts = [self.found]
        if self.expected:
            parts.append(f"Expected: {self.expected}")
        if self.advice:
            parts.append(f"Do: {self.advice}")
        return ". ".join(part.rstrip(".") for part in parts) + "."

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.found, self.expected, self.advice, self.__dict__)


def _rebuild(cls: type[StixflowError], found: str, expected: str, advice: str, state: dict[str, object]) -> object:
    error = cls.__new__(cls)
    StixflowError.__init__(error, found, expected=expected, advice=advice)
    error.__dict__.update(state)
    return error


class UsageError(StixflowError, ValueError):
    """An argument that makes no sense; the caller, not the data, is wrong."""

    exit_code = 2


class NotFound(StixflowError, LookupError):
    """A partition, request, flare, image or product that the archive does not hold."""


class InputFileError(StixflowError, ValueError):
    """A file that is not what its name, its place or the caller says it is."""


class MissingFile(StixflowError, FileNotFoundError):
    """A path with nothing behind it, or a folder without a single usable file."""


class SchemaError(StixflowError, ValueError):
    """A Dataset that does not follow the data model; lists every problem at once."""


class StoreError(StixflowError, RuntimeError):
    """A Zarr store that is damaged, incomplete, or about to be overwritten."""


class PublishConflict(StixflowError, RuntimeError):
    """Somebody else published the partition since this run read it."""


class ArchiveBusy(StixflowError, RuntimeError):
    """Another run builds and publishes in the archive."""


class BalanceError(StixflowError, ArithmeticError):
    """Packets or counts that went in and did not come out; such a run is not published."""


class ImagingError(StixflowError, ValueError):
    """Pixel data from which the asked image cannot honestly be made."""
