from __future__ import annotations

import contextlib
import io
import json
import logging
import sys
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from hone.services.http.failures import MAX_MESSAGE, RequestError, status_of
from hone.services.observe.logs import JsonFormatter, QuietStreamHandler, _Redacting, redact
from hone.services.observe.metrics import SECONDS
from hone.services.observe.tallies import DriftSample, Tally


def test_tally_shows_what_single_observations_would() -> None:
    registries = CollectorRegistry(), CollectorRegistry()
    single, bulk = (Histogram("h", "h", buckets=SECONDS, registry=registry) for registry in registries)
    tally = Tally(SECONDS)
    values = [*np.random.default_rng(0).exponential(0.05, 500), *SECONDS, 0.0, 100.0]
    for index, value in enumerate(values):
        single.observe(value)
        if index >= 300:
            tally.observe(value)
        if index % 100 == 0:
            tally.observe_many(np.array(values[index : index + 100][: max(0, 300 - index)]))
            tally.flush(bulk)
    tally.flush(bulk)

    def lines(registry: CollectorRegistry) -> list[tuple[str, float]]:
        text = generate_latest(registry).decode()
        found = [line.rsplit(" ", 1) for line in text.splitlines() if line[0] != "#" and "created" not in line]
        return [(name, round(float(value), 6)) for name, value in found]

    assert lines(registries[0]) == lines(registries[1])


def test_redaction() -> None:
    text = (
        "peer 203.0.113.7 and 127.0.0.1, ann@example.com, redis://:hunter2@cache:6379/0, "
        "Authorization: Bearer abc.def, x-api-key: k3y, eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln, version 1.26.4"
    )
    masked = redact(text)
    for secret in ("203.0.113.7", "ann@example.com", "hunter2", "abc.def", "k3y", "eyJzdWIi"):
        assert secret not in masked
    assert "127.0.0.1" in masked and "version 1.26.4" in masked


def test_json_lines_hold_fields_and_exceptions() -> None:
    try:
        raise ValueError("mail ann@example.com")
    except ValueError:
        record = logging.LogRecord("hone", logging.ERROR, "f", 1, "failed %d", (3,), sys.exc_info())
    record.fields = {"request_id": "abc", "status": 500}
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["level"], line["request_id"], line["status"]) == ("failed 3", "error", "abc", 500)
    assert "ValueError" in line["exception"] and "ann@example.com" not in line["exception"]


def test_log_line_stays_one_short_line() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(_Redacting())
    made_up = "a\n2026-01-01 [INFO] forged\r\x1b[31m\u2028" + "x" * 100_000
    try:
        raise ValueError(made_up)
    except ValueError:
        handler.handle(logging.LogRecord("hone", logging.ERROR, "f", 1, "loading %s", (made_up,), sys.exc_info()))
    lines = stream.getvalue().splitlines()
    assert lines[0].startswith("loading a\\n2026-01-01 [INFO] forged\\r\\x1b[31m\\u2028xxx")
    assert all(line.startswith("  | ") for line in lines[1:])
    assert max(map(len, lines)) < 1100


def test_callers_names_in_a_message_are_cut_and_made_printable() -> None:
    status, message, _ = status_of(RequestError("no model '" + "a\n" * 8_000_000))
    assert (status, len(message)) == (400, MAX_MESSAGE)
    assert message.startswith("no model 'a?a?") and message.endswith("…")


def test_drift_sample_sums_requests_as_if_they_were_one() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(3.0, 2.0, (130, 4)).astype(np.float32)
    scores = generator.normal(size=(130, 3)).astype(np.float32)
    shown: dict[str, float] = {}

    class Family:
        def __init__(self, name: str) -> None:
            self._name = name

        def labels(self, **labels: str) -> Family:
            return Family(self._name + labels.get("choice", ""))

        def set(self, value: float) -> None:
            shown[self._name] = value

        def inc(self, value: float) -> None:
            shown[self._name] = shown.get(self._name, 0) + value

    sample = DriftSample()
    for start, end in ((0, 1), (1, 40), (40, 130)):
        sample.add({"x": rows[start:end]}, {"scores": scores[start:end]})
    assert sample.rows == 130
    sample.show({name: Family(name) for name in ("mean", "deviation", "classes")}, {})
    np.testing.assert_allclose([shown["mean"], shown["deviation"]], [rows.mean(), rows.std()], rtol=1e-5)
    counts = np.bincount(scores.argmax(1))
    assert [shown[f"classes{index}"] for index in range(3)] == counts.tolist()


def test_log_that_cant_be_written_hurts_nobody() -> None:
    full = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115 - closing it fails too
    handler = QuietStreamHandler(full)
    for _ in range(3):
        handler.handle(logging.LogRecord("hone", logging.INFO, "f", 1, "x" * 100, (), None))
    with contextlib.suppress(OSError):
        full.close()
