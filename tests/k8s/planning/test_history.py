"""Histories: what is read from files and from a real Prometheus, and what is refused."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.errors import HoneError
from hone.k8s.planning import prometheus as asking
from hone.k8s.planning.history import ask_prometheus, read_csv
from tests.prometheus import needs_prometheus, prometheus

START = 1_700_438_400  # a Monday, 00:00 UTC
HOURS = 80


def written(folder: Path, rows: list[tuple[object, object]], head: str = "t,rate") -> Path:
    file = folder / "load.csv"
    file.write_text("\n".join([head, *(f"{t},{rate}" for t, rate in rows)]) + "\n")
    return file


def hourly(count: int = HOURS) -> list[tuple[object, object]]:
    return [(START + 3600 * hour, 100 + hour) for hour in range(count)]


def test_hours_are_read_as_they_are(tmp_path: Path) -> None:
    found = read_csv(written(tmp_path, hourly()))
    assert found.start == START
    assert found.rates.tolist() == [100 + hour for hour in range(HOURS)]
    assert found.end == START + 3600 * HOURS


def test_times_may_be_written_as_dates(tmp_path: Path) -> None:
    rows: list[tuple[object, object]] = [
        (datetime.fromtimestamp(START + 3600 * hour, UTC).isoformat(), rate) for hour, (_, rate) in enumerate(hourly())
    ]
    assert read_csv(written(tmp_path, rows)).start == START


def test_finer_samples_become_means_of_whole_hours(tmp_path: Path) -> None:
    """They begin at 20 minutes past: the rest of that hour is left out, as is the last, which isn't whole."""
    rows: list[tuple[object, object]] = [(START + 1200 + 600 * step, step) for step in range(6 * HOURS)]
    found = read_csv(written(tmp_path, rows))
    assert found.start == START + 3600
    assert found.rates[:2].tolist() == [6.5, 12.5]
    assert len(found.rates) == HOURS - 1


def test_hole_is_filled_by_a_straight_line_only_when_asked_for(tmp_path: Path) -> None:
    rows = hourly()
    del rows[10:13]
    file = written(tmp_path, rows)
    with pytest.raises(HoneError, match=r"load\.csv:12: a hole: .*09:00 UTC and .*13:00 UTC; .* --fill 3"):
        read_csv(file, 2)
    found = read_csv(file, 3)
    assert found.rates.tolist() == [100 + hour for hour in range(HOURS)]
    assert found.notes[0] == "3 sample(s) that were missing are filled in by straight lines"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.insert(5, (START, 5)), "load.csv:7: time goes from Mon 2023-11-20 04:00 UTC to Mon 2023"),
        (lambda rows: rows.insert(1, rows[0]), "load.csv:3: time goes from"),
        (lambda rows: rows.__setitem__(3, (rows[3][0], -1)), "load.csv:5: the rate is -1; requests per second are 0"),
        (lambda rows: rows.__setitem__(3, (rows[3][0], "nan")), "load.csv:5: rate is 'nan', not a number"),
        (lambda rows: rows.__setitem__(3, (rows[3][0], "inf")), "load.csv:5: rate is 'inf', not a number"),
        (lambda rows: rows.__setitem__(3, (rows[3][0], "")), "load.csv:5: rate is '', not a number"),
        (lambda rows: rows.__setitem__(3, ("soon", 1)), "load.csv:5: t is 'soon', not a number"),
        (
            lambda rows: rows.__setitem__(3, (START + 3.5 * 3600, 1)),
            "load.csv:5: 5400 s after the one before",
        ),
        (lambda rows: rows.__delitem__(slice(3, 5)), "load.csv:5: a hole"),
        (lambda rows: rows.__delitem__(slice(40, None)), "load.csv: 40 whole hours; a forecast takes 2 days at least"),
        (lambda rows: rows.__delitem__(slice(1, None)), "load.csv: 1 sample(s); a forecast takes 2 days"),
        (list.clear, "load.csv: 0 sample(s)"),
        (lambda rows: rows.__setitem__(slice(None), [(t, 0) for t, _ in rows]), "load.csv: every rate is 0"),
        (lambda rows: rows.__setitem__(slice(None), [(24 * t, r) for t, r in rows]), "samples are 86,400 s apart"),
        (
            lambda rows: rows.__setitem__(slice(None), [(START + 420 * n, 1) for n in range(900)]),
            "420 s apart; an hour",
        ),
    ],
)
def test_wrong_file_is_one_line(
    tmp_path: Path, change: Callable[[list[tuple[object, object]]], None], words: str
) -> None:
    rows = hourly()
    change(rows)
    refused(words, "--csv", str(written(tmp_path, rows)))


@pytest.mark.parametrize(
    ("head", "words"),
    [("", "has to name the columns t,rate, not ''"), ("time,load", "has to name the columns t,rate, not 'time,load'")],
)
def test_missing_columns_are_named(tmp_path: Path, head: str, words: str) -> None:
    refused(words, "--csv", str(written(tmp_path, hourly(), head)))


def test_missing_file_is_one_line(tmp_path: Path) -> None:
    refused("none.csv: No such file or directory", "--csv", str(tmp_path / "none.csv"))


def refused(words: str, *arguments: str) -> None:
    result = CliRunner().invoke(cli, ["capacity", "forecast", *arguments])
    assert result.exit_code == 1, result.output
    assert words in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_days_and_where_the_history_is_are_asked_for(tmp_path: Path) -> None:
    file = str(written(tmp_path, hourly()))
    for days in ("", "0", "7,x", "91"):
        refused(f"--days: '{days}' are no days", "--csv", file, "--days", days)
    refused("--out: 'f.txt' has to end with .json", "--csv", file, "--out", "f.txt")
    for arguments in ([], ["--csv", file, "--prometheus", "http://127.0.0.1:9"], ["--csv", file, "--query", "up"]):
        assert CliRunner().invoke(cli, ["capacity", "forecast", *arguments]).exit_code == 2


def counter(start: float, hours: int, rate: Callable[[float], float], labels: str, skip: range = range(0)) -> str:
    """Return a counter of requests, scraped every quarter of an hour."""
    lines, total = [], 0.0
    for step in range(4 * hours + 1):
        t = start + 900 * step
        if step not in skip:
            lines.append(f"hone_requests_total{{{labels}}} {total:.3f} {t:.0f}")
        total += 900 * rate(t)
    return "\n".join(lines) + "\n"


def wave(t: float) -> float:
    return 200 + 100 * math.sin(2 * math.pi * t / 86400)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """A Prometheus with five weeks of two models' requests, and the last whole hour; a third has a hole."""
    end = 3600 * math.floor(time.time() / 3600)
    start = end - 35 * 86400
    text = "# TYPE hone_requests counter\n"
    text += counter(start, 35 * 24, wave, 'model="a"') + counter(start, 35 * 24, wave, 'model="b"')
    text += counter(start, 35 * 24, wave, 'model="holes"', range(400, 440)) + "# EOF\n"
    with prometheus(tmp_path_factory.mktemp("prometheus"), text) as url:
        yield url, end


TWO = 'sum(rate(hone_requests_total{model=~"a|b"}[1h]))'


@needs_prometheus
def test_prometheus_tells_the_rate_of_each_hour(server: tuple[str, float]) -> None:
    url, end = server
    found = ask_prometheus(url, TWO, 56, end + 1800)
    assert found.end == end
    assert len(found.rates) == pytest.approx(35 * 24, abs=1)
    means = [sum(2 * wave(found.start + 3600 * hour + 900 * part) for part in range(4)) / 4 for hour in range(800)]
    assert found.rates[5:800].tolist() == pytest.approx(means[5:800], rel=0.01)
    assert len(ask_prometheus(url, TWO, 10, end).rates) == 10 * 24 + 1


@needs_prometheus
@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("hone_nothing", "nothing in the last 56 days for hone_nothing; give another --query, or --history"),
        ("rate(hone_requests_total[1h])", "3 series for rate(hone_requests_total[1h]); give a --query of one"),
        ("sum(rate(", "refuses the query: 1:10: parse error"),
        (f"0 / (0 * {TWO})", "the rate is not a number; is something divided by 0?"),
        (f"-{TWO}", "requests per second are 0 or more"),
        (TWO.replace("a|b", "holes"), "a hole: nothing between"),
    ],
)
def test_what_prometheus_cannot_tell_is_one_line(server: tuple[str, float], query: str, words: str) -> None:
    refused(words, "--prometheus", server[0], "--query", query)


@needs_prometheus
def test_forecast_of_a_prometheus(server: tuple[str, float], tmp_path: Path) -> None:
    out = tmp_path / "forecast.json"
    arguments = ["--prometheus", f"{server[0]}/", "--query", TWO, "--days", "1,7", "--out", str(out)]
    result = CliRunner().invoke(cli, ["capacity", "forecast", *arguments])
    assert result.exit_code == 0, result.output
    assert "next 7 days" in result.output and "back-test: " in result.output
    assert out.with_suffix(".html").is_file()


def test_silent_or_other_servers_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_S", 0.5)
    refused("'localhost:9090' is no address; give one such as", "--prometheus", "localhost:9090")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    refused("Connection refused; is Prometheus there, and reachable", "--prometheus", f"http://127.0.0.1:{port}")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        refused(
            "no answer in 0.5 s; is Prometheus there", "--prometheus", f"http://127.0.0.1:{silent.getsockname()[1]}"
        )


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (200, b"<html>", "doesn't answer as Prometheus does; give the address of its API"),
        (200, b"[]", "doesn't answer as Prometheus does"),
        (404, b"not found", "answers 404, not as Prometheus does; give the address of its API"),
        (503, b'{"status":"error","error":"query timed out\\nin it"}', "refuses the query: query timed out in it"),
        (200, b'{"status":"success","data":{"result":[]}}', "nothing in the last 56 days"),
    ],
)
def test_answers_that_are_no_history_are_one_line(status: int, body: bytes, words: str) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        refused(words, "--prometheus", f"http://127.0.0.1:{other.server_port}")
        other.shutdown()
