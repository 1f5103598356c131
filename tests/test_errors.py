"""Messages have three parts, and errors survive the trip from a worker."""

from __future__ import annotations

import pickle

import pytest

from stixflow import errors


def _subclasses(cls: type[errors.StixflowError]) -> list[type[errors.StixflowError]]:
    return [cls, *(sub for child in cls.__subclasses__() for sub in _subclasses(child))]


@pytest.mark.parametrize("cls", _subclasses(errors.StixflowError))
def test_message_has_three_parts_and_pickles(cls: type[errors.StixflowError]) -> None:
    error = pickle.loads(pickle.dumps(cls("3 bytes were found.", expected="16", advice="send the file again.")))
    assert type(error) is cls
    assert str(error) == "3 bytes were found. Expected: 16. Do: send the file again."
    assert error.exit_code in (1, 2)


@pytest.mark.parametrize("cls", _subclasses(errors.StixflowError)[1:])
def test_every_class_is_also_a_builtin(cls: type[errors.StixflowError]) -> None:
    assert any(base.__module__ == "builtins" and base not in (Exception, BaseException, object) for base in cls.__mro__)
