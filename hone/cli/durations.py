"""Spans of time on the command line: 30s, 2m, 1.5h."""

from __future__ import annotations

import re
from typing import Any

import click

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


class Duration(click.ParamType):
    """Seconds, with a unit or without."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", str(value))
        if match is None:
            self.fail(f"'{value}' is no span of time; give one such as 30s, 2m or 1h", param, ctx)
        return float(match[1]) * UNITS[match[2] or "s"]


DURATION = Duration()
