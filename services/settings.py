"""What can be set about a service: environment variables, because that is what reaches every worker and container."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from hone.errors import HoneError


@dataclass(frozen=True)
class Settings:
    """Settings of one worker. Each is the variable named beside it.

    Attributes:
        model: HONE_MODEL, the stored model: NAME, NAME:VARIANT or a full tag.
        max_body_mb: HONE_MAX_BODY_MB, the largest request body, MB.
        max_batch_rows: HONE_MAX_BATCH_ROWS, most rows joined into one call of the runtime.
        queue_rows: HONE_QUEUE_ROWS, rows that may wait; more are refused with 503.
        threads: HONE_THREADS, threads of one inference; 0 measures at the start whether several gain enough over one.
        workers: HONE_WORKERS, worker processes; BentoML's own --api-workers does nothing for a service of this kind.
    """

    model: str = ""
    max_body_mb: float = 16.0
    max_batch_rows: int = 64
    queue_rows: int = 4096
    threads: int = 0
    workers: int = 1

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1e6)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables.

        Raises:
            HoneError: naming the variable whose value is wrong.
        """
        values: dict[str, object] = {}
        for field in fields(cls):
            variable = f"HONE_{field.name.upper()}"
            text = environment.get(variable, "").strip()
            if text:
                values[field.name] = _parse(variable, text, type(field.default))
        settings = cls(**values)  # type: ignore[arg-type]
        if settings.queue_rows < settings.max_batch_rows:
            raise HoneError(
                f"HONE_QUEUE_ROWS is {settings.queue_rows}, less than HONE_MAX_BATCH_ROWS {settings.max_batch_rows}"
            )
        return settings


def _parse(variable: str, text: str, kind: type) -> object:
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise HoneError(f"{variable}: '{text}' is not a number") from None
    smallest = 0 if variable == "HONE_THREADS" else 1 if kind is int else 1e-6
    if not value >= smallest or value == float("inf"):
        raise HoneError(f"{variable}: {text} is too small or not finite; give at least {smallest:g}")
    return value
