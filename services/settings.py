"""What can be set about a service: environment variables, because that is what reaches every worker and container."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from hone.errors import HoneError

PREFIX = "HONE_"
ELSEWHERE = ("HONE_DEBUG", "HONE_CACHE")
"""Variables of Hone that are not a service's."""

CHOICES = {"access_log": ("off", "errors", "all"), "log_format": ("text", "json")}
ZERO_MEANS_AUTO = ("threads", "in_flight", "max_batch_rows", "grpc_port", "max_read_mb")
MAY_BE_ZERO = ("cache_mb", "trace_sample", "record_sample", "shadow_sample", "drain_s", "default_timeout_ms")

READ_PER_BODY = 32
"""Memory to read a body with, in bodies: JSON of short numbers takes about 22 times its own length."""


@dataclass(frozen=True)
class Settings:
    """Settings of one worker. Each is the environment variable HONE_ and its name in capitals.

    Attributes:
        model: the stored model: NAME, NAME:VARIANT or a full tag.
        models: more models to serve beside it, separated by commas.
        max_body_mb: the largest request body, and what it may decompress to, MB.
        max_read_mb: memory that one request may take while it is read, MB; 0: 32 times max_body_mb.
        max_rows: most rows of one request.
        max_row_values: most values of one row along its dynamic axes, such as the tokens of a text.
        max_batch_rows: most rows joined into one call of the runtime; 0 measures where more rows gain nothing.
        queue_rows: rows that may wait; more are refused with 503.
        threads: threads of one inference; 0 measures.
        in_flight: batches that run side by side; 0 measures.
        workers: worker processes; BentoML's own --api-workers does nothing for a service of this kind.
        default_timeout_ms: of requests that carry no deadline of their own; 0: none.
        grpc_port: of the V2 protocol over gRPC; 0: off.
        cache_mb: memory of the prediction cache, MB; 0: off.
        cache_ttl_s: how long a prediction is kept.
        redis_url: of a cache shared by replicas; its password is never logged.
        api_keys: file of API keys, see `hone keys new`.
        jwt_jwks: URL or file of the keys that sign JSON Web Tokens.
        jwt_issuer, jwt_audience: that a token must carry.
        insecure: serve other addresses than loopback without keys.
        trust_code: serve artifacts that bring code, wherever they are from.
        trusted_keys: public key, or folder of them; only what one of them signed is served.
        audit_log: file of the admin actions, hash-chained.
        log_format: text or json.
        access_log: off, errors (answers from 500 up and refusals) or all.
        trace_sample: share of requests traced to OTEL_EXPORTER_OTLP_ENDPOINT, 0 to 1.
        record_dir: folder of recorded traffic (Parquet).
        record_sample: share of requests recorded, 0 to 1.
        shadow: a stored model that gets a copy of the traffic; its answers are compared and dropped.
        shadow_sample: share of requests copied, 0 to 1.
        drain_s: seconds between SIGTERM, when readiness goes off, and the end of accepting; a load balancer's delay.
    """

    model: str = ""
    models: str = ""
    max_body_mb: float = 16.0
    max_read_mb: float = 0.0
    max_rows: int = 65_536
    max_row_values: int = 1_048_576
    max_batch_rows: int = 0
    queue_rows: int = 4096
    threads: int = 0
    in_flight: int = 0
    workers: int = 1
    default_timeout_ms: float = 0.0
    grpc_port: int = 0
    cache_mb: float = 0.0
    cache_ttl_s: float = 300.0
    redis_url: str = ""
    api_keys: str = ""
    jwt_jwks: str = ""
    jwt_issuer: str = ""
    jwt_audience: str = ""
    insecure: bool = False
    trust_code: bool = False
    trusted_keys: str = ""
    audit_log: str = ""
    log_format: str = "text"
    access_log: str = "off"
    trace_sample: float = 0.0
    record_dir: str = ""
    record_sample: float = 1.0
    shadow: str = ""
    shadow_sample: float = 1.0
    drain_s: float = 0.0

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1e6)

    @property
    def more_models(self) -> tuple[str, ...]:
        """References of `models`."""
        return tuple(filter(None, (reference.strip() for reference in self.models.split(","))))

    @property
    def max_read_bytes(self) -> int:
        return int((self.max_read_mb or READ_PER_BODY * self.max_body_mb) * 1e6)

    @property
    def secured(self) -> bool:
        """True when callers must show a key or a token."""
        return bool(self.api_keys or self.jwt_jwks)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Read the variables.

        Raises:
            HoneError: naming the variable whose value is wrong.
        """
        known = {f"{PREFIX}{field.name.upper()}": field for field in fields(cls)}
        values: dict[str, object] = {}
        for variable, field in known.items():
            text = environment.get(variable, "").strip()
            if text:
                values[field.name] = _parse(variable, field.name, text, type(field.default))
        settings = cls(**values)  # type: ignore[arg-type]
        settings._check()
        return settings

    def _check(self) -> None:
        if self.queue_rows < self.max_batch_rows:
            raise HoneError(
                f"HONE_QUEUE_ROWS is {self.queue_rows}, less than HONE_MAX_BATCH_ROWS {self.max_batch_rows}"
            )
        if self.jwt_jwks and not (self.jwt_issuer and self.jwt_audience):
            raise HoneError("HONE_JWT_JWKS needs HONE_JWT_ISSUER and HONE_JWT_AUDIENCE, or any token would be accepted")
        if self.redis_url and not self.cache_mb:
            raise HoneError("HONE_REDIS_URL needs HONE_CACHE_MB over 0: the cache in memory stands before Redis")
        for share in ("trace_sample", "record_sample", "shadow_sample"):
            if getattr(self, share) > 1:
                raise HoneError(f"HONE_{share.upper()} is {getattr(self, share):g}; it is a share, 0 to 1")
        if self.grpc_port > 65535:
            raise HoneError(f"HONE_GRPC_PORT is {self.grpc_port}; a port is at most 65535")


def misspelled(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a line for each variable that looks like a misspelled setting.

    Others are left alone: Kubernetes makes variables such as HONE_SERVICE_HOST for a service named hone.
    """
    known = [f"{PREFIX}{field.name.upper()}" for field in fields(Settings)]
    unknown = [name for name in environment if name.startswith(PREFIX) and name not in (*known, *ELSEWHERE)]
    near = {name: difflib.get_close_matches(name, known, n=1, cutoff=0.8) for name in unknown}
    return [
        f"{name} is set, but there is no such setting; did you mean {guess[0]}?"
        for name, guess in near.items()
        if guess
    ]


def _parse(variable: str, name: str, text: str, kind: type) -> object:
    if kind is str:
        choices = CHOICES.get(name)
        if choices and text not in choices:
            raise HoneError(f"{variable}: '{text}' is none of {', '.join(choices)}")
        return text
    if kind is bool:
        if text.lower() not in ("0", "1", "true", "false"):
            raise HoneError(f"{variable}: '{text}' is neither 1 nor 0")
        return text.lower() in ("1", "true")
    try:
        value = kind(text)
    except ValueError:
        raise HoneError(f"{variable}: '{text}' is not a number") from None
    smallest = 0 if name in (*ZERO_MEANS_AUTO, *MAY_BE_ZERO) else 1 if kind is int else 1e-6
    if not value >= smallest or value == float("inf"):
        raise HoneError(f"{variable}: {text} is too small or not finite; give at least {smallest:g}")
    return value
