"""The one exception for anything a user can cause."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used: the message names the thing, its value, what is demanded and the way
    out.

    The command line prints it as one line, `error: …`, and exits with status 2.
    """
