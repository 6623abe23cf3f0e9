"""What can be set about a service: environment variables, because that is what reaches every worker and container."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

from hone.errors import HoneError
from hone.plan import MOST, Plan, given_plan

PREFIX = "HONE_"
LAUNCHER = "HONE_LAUNCHER"
"""Process id of the `hone serve` that a server was started by, and ends with."""
SHARED_TEMP = "HONE_SHARED_TEMP"
"""Folder of what a host's servers share; one that `hone serve` started has a TMPDIR of its own."""

ELSEWHERE = ("HONE_DEBUG", "HONE_CACHE", LAUNCHER, SHARED_TEMP)
"""Variables of Hone that are not a service's."""

FILES = (
    *("plan", "api_keys", "jwt_jwks", "trusted_keys", "audit_log"),
    *("record_dir", "record_key_file", "drift_dir", "feedback_dir", "jobs_dir"),
)
"""Settings that name a file or folder; a plan may stand there itself."""

CHOICES = {
    "access_log": ("off", "errors", "all"),
    "log_format": ("text", "json"),
    "record_mode": ("sampled", "complete"),
}
ZERO_MEANS_AUTO = ("threads", "in_flight", "max_batch_rows", "grpc_port", "max_read_mb")
MAY_BE_ZERO = (
    *("cache_mb", "golden_check_s", "trace_sample", "record_sample", "shadow_sample", "drain_s", "default_timeout_ms"),
    *("rate_per_s", "record_days", "drift_days", "feedback_days", "inference_nice"),
)

LOWEST = 19
"""The lowest priority that Linux knows."""

READ_PER_BODY = 32
"""Memory to read a body with, in bodies: JSON of short numbers takes about 22 times its own length."""


@dataclass(frozen=True)
class Settings:
    """Settings of one worker. Each is the environment variable HONE_ and its name in capitals.

    Attributes:
        model: the stored model: NAME, NAME:VARIANT or a full tag.
        models: more models to serve beside it, separated by commas.
        max_body_mb: the largest request body, and what it may decompress to, MB.
        max_read_mb: memory that reading one request may take, as much its answer, and as much what steps make of it,
            MB; 0: 32 times max_body_mb.
        max_rows: most rows of one request.
        max_row_values: most values of one row along its dynamic axes, such as the tokens of a text.
        max_batch_rows: most rows joined into one call of the runtime; 0 measures where more rows gain nothing.
        queue_rows: rows that may wait; more are refused with 503.
        threads: threads of one inference; 0 measures.
        in_flight: batches that run side by side; 0 measures.
        inference_nice: so much lower than the event loop's is the priority of threads that run batches; 0: the same.
        plan: of the model, JSON or a file of it; nothing is measured then.
        golden_check_s: seconds between two comparisons with the proof's answers while serving; 0: at loading only.
        rerank: time the best variants anew on a host that differs from the proof's.
        workers: worker processes; BentoML's own --api-workers does nothing for a service of this kind.
        default_timeout_ms: of requests that carry no deadline of their own; 0: none.
        grpc_port: of the V2 protocol over gRPC; 0: off.
        cache_mb: memory of the prediction cache, MB; 0: off.
        cache_ttl_s: how long a prediction is kept.
        redis_url: of a cache and of rate limits shared by replicas; its password is never logged.
        api_keys: file of API keys, see `hone keys new`.
        jwt_jwks: URL or file of the keys that sign JSON Web Tokens.
        jwt_issuer, jwt_audience: that a token must carry.
        rate_per_s: requests a second of each caller whose key has no limit of its own; without keys, of all callers
            together; 0: no limit.
        insecure: serve other addresses than loopback without keys.
        trust_code: serve artifacts that bring code, wherever they are from.
        trusted_keys: public key, or folder of them; only what one of them signed is served.
        audit_log: file of the admin actions, hash-chained; "-": standard output.
        log_format: text or json.
        access_log: off, errors (answers from 500 up and refusals) or all.
        trace_sample: share of requests traced to OTEL_EXPORTER_OTLP_ENDPOINT, 0 to 1.
        record_dir: folder of recorded traffic (Parquet).
        record_sample: share of requests recorded, 0 to 1.
        record_mode: sampled, or complete: a request that can't be recorded isn't answered.
        record_max_mb: of all recorded files; the oldest are removed first.
        record_days: age at which a recorded file is removed; 0: none.
        record_exclude: columns left out of the files, such as input.NAME, or hashed, such as hash:input.NAME.
        record_key_file: of 32 bytes that recorded traffic and feedback are encrypted with.
        drift_dir: folder of sketches of traffic, for `hone drift`.
        drift_flush_s: seconds between two writes of them: a crash loses no more.
        drift_max_mb: of all their files; the oldest hours are removed first.
        drift_days: age at which they are removed; 0: none.
        feedback_dir: folder of who got which answer, and of labels and figures that come later, for `hone feedback`.
        feedback_flush_s: seconds between two writes of answers: a crash loses no more.
        feedback_max_mb: of all files of each kind; the oldest hours are removed first.
        feedback_days: age at which they are removed; 0: none.
        subject_header: header that says whom a request is about; its keyed hash is kept beside answers and records.
        jobs_dir: folder of asynchronous jobs; none are taken without.
        jobs_redis: keep jobs in redis_url, which replicas share; bodies pass through jobs_dir.
        jobs_body_mb: the largest body of a job, and what it may decompress to, MB.
        jobs_rows: most rows of a job.
        jobs_most: jobs that are kept, done or not.
        jobs_mb: of all their bodies and results, MB.
        jobs_hours: age at which a job is thrown away, done or not.
        shadow: a stored model that gets a copy of the traffic; its answers are compared and dropped.
        shadow_sample: share of requests copied, 0 to 1.
        drain_s: seconds between SIGTERM, when readiness goes off, and the end of accepting; a load balancer's delay.
        stop_s: seconds from there to the end of the process, whatever callers or collectors do.
        max_header_kb: the largest head of a request, request line and headers, kB.
        header_timeout_s: for a head to come; also the longest pause in a body, or in the reading of an answer.
        body_timeout_s: for a body to come, and for an answer to be read.
        keep_alive_s: how long a connection stays open without a request; longer than proxies in front keep theirs.
        max_connections: open at once in a worker; fewer where the system lets it open fewer files.
        bodies_mb: of all larger bodies that a worker holds at once, and of all larger answers, MB; more wait, or are
            refused with 503.
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
    inference_nice: int = 10
    plan: str = ""
    golden_check_s: float = 3600.0
    rerank: bool = True
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
    rate_per_s: float = 0.0
    insecure: bool = False
    trust_code: bool = False
    trusted_keys: str = ""
    audit_log: str = ""
    log_format: str = "text"
    access_log: str = "off"
    trace_sample: float = 0.0
    record_dir: str = ""
    record_sample: float = 1.0
    record_mode: str = "sampled"
    record_max_mb: float = 1024.0
    record_days: float = 0.0
    record_exclude: str = ""
    record_key_file: str = ""
    drift_dir: str = ""
    drift_flush_s: float = 10.0
    drift_max_mb: float = 1024.0
    drift_days: float = 35.0
    feedback_dir: str = ""
    feedback_flush_s: float = 10.0
    feedback_max_mb: float = 1024.0
    feedback_days: float = 35.0
    subject_header: str = ""
    jobs_dir: str = ""
    jobs_redis: bool = False
    jobs_body_mb: float = 64.0
    jobs_rows: int = 1_000_000
    jobs_most: int = 1000
    jobs_mb: float = 1024.0
    jobs_hours: float = 24.0
    shadow: str = ""
    shadow_sample: float = 1.0
    drain_s: float = 0.0
    stop_s: float = 20.0
    max_header_kb: float = 32.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    max_connections: int = 1000
    bodies_mb: float = 128.0

    @property
    def max_body_bytes(self) -> int:
        return int(self.max_body_mb * 1e6)

    @property
    def more_models(self) -> tuple[str, ...]:
        """References of `models`."""
        return tuple(filter(None, (reference.strip() for reference in self.models.split(","))))

    @property
    def bodies_bytes(self) -> int:
        """At least one body of the largest size always fits."""
        return int(max(self.bodies_mb, self.max_body_mb) * 1e6)

    @property
    def answer_s(self) -> float:
        """The part of `stop_s` that callers get to read their answers; the rest closes what the worker holds."""
        return max(self.stop_s - 5.0, self.stop_s / 2)

    @property
    def max_read_bytes(self) -> int:
        return int((self.max_read_mb or READ_PER_BODY * self.max_body_mb) * 1e6)

    @property
    def secured(self) -> bool:
        """True when callers must show a key or a token."""
        return bool(self.api_keys or self.jwt_jwks)

    @property
    def given_plan(self) -> Plan | None:
        """The plan, where one is given; raises HoneError when it is none."""
        return given_plan(self.plan) if self.plan else None

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
        settings = cls(**values)._as_planned(values)  # type: ignore[arg-type]
        settings._check()
        return settings

    def _as_planned(self, given: Mapping[str, object]) -> Settings:
        """Take the number of workers from the plan; what is set beside it must agree."""
        plan = self.given_plan
        if plan is None:
            return self
        for name in ("workers", "threads", "in_flight", "max_batch_rows"):
            value, planned = given.get(name), getattr(plan, name)
            if value and value != planned:
                raise HoneError(f"{PREFIX}{name.upper()} is {value}, but HONE_PLAN says {planned}; leave one out")
        return replace(self, workers=plan.workers)

    def _check(self) -> None:
        if self.queue_rows < self.max_batch_rows:
            raise HoneError(
                f"HONE_QUEUE_ROWS is {self.queue_rows}, less than HONE_MAX_BATCH_ROWS {self.max_batch_rows}"
            )
        if self.jwt_jwks and not (self.jwt_issuer and self.jwt_audience):
            raise HoneError("HONE_JWT_JWKS needs HONE_JWT_ISSUER and HONE_JWT_AUDIENCE, or any token would be accepted")
        if self.redis_url and not (self.cache_mb or self.secured or self.rate_per_s or self.jobs_redis):
            raise HoneError(
                "HONE_REDIS_URL is for the cache, rate limits and jobs: set HONE_CACHE_MB over 0, keys, "
                "HONE_RATE_PER_S or HONE_JOBS_REDIS"
            )
        if self.jobs_redis and not (self.redis_url and self.jobs_dir):
            raise HoneError("HONE_JOBS_REDIS needs HONE_REDIS_URL, and HONE_JOBS_DIR, where bodies are written first")
        if self.record_mode == "complete" and not self.record_dir:
            raise HoneError("HONE_RECORD_MODE=complete needs HONE_RECORD_DIR, the folder that records go to")
        if self.record_mode == "complete" and self.record_sample < 1:
            raise HoneError("HONE_RECORD_MODE=complete keeps every request; leave HONE_RECORD_SAMPLE out")
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
    if name in ("workers", "threads", "in_flight") and value > MOST:
        raise HoneError(f"{variable}: {text} is too large; give at most {MOST}")
    if name == "inference_nice" and value > LOWEST:
        raise HoneError(f"{variable}: {text} is too large; give at most {LOWEST}")
    return value
