"""What goes wrong with rows."""

from __future__ import annotations

from hone.errors import HoneError


class ScoreError(HoneError):
    """Rows can't be scored; the message names the file."""


class RowError(ScoreError):
    """A row that the model can't answer; the message names its file and number."""

    exit_code = 2
