"""Context managers left regularly, by an exception, and by Ctrl-C."""

import pytest


class Interrupted(KeyboardInterrupt):
    """A Ctrl-C of our own, which pytest does not take for the user's."""


def used_and_broken(manager, inside=lambda: None):
    """Enter a context manager, do something, and leave it once regularly and once by an exception."""
    with manager():
        inside()
    for error in (RuntimeError, Interrupted):
        with pytest.raises(error), manager():
            fail(error, inside)


def fail(error, first):
    first()
    raise error


def check(condition):
    assert condition
