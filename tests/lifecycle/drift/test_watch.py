"""What `hone drift watch` tells people and Prometheus: once, again after a while, and when it is over."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword

from hone.errors import HoneError
from hone.lifecycle.drift.findings import Drift, Finding
from hone.lifecycle.drift.gauges import MOST_GROUPS, Gauges
from hone.lifecycle.drift.watch import Watch, to_tell
from hone.lifecycle.watching.alerts import Alert, AlertSettings, Mail, Webhook, read_settings, send
from hone.lifecycle.watching.watch import HOUR_S, Memory
from hone.records import Verdict
from hone.services.launch import free_port
from tests.servers import self_signed

ALERT = Alert(
    "m:v1", "drift", "m:v1: drift in 1 of 2 columns", ("input.x: moved",), {"model": "m:v1", "state": "drift"}
)


def finding(column: str, verdict: Verdict, group: str = "input.x") -> Finding:
    return Finding(column, group, verdict, 0.2, 0.15, 0.25, 0.1, "up to 3", 0.5, 0.3, 500, 500, 500, 6, 0.19, 400)


def drift(version: str = "v1", **columns: Verdict) -> Drift:
    found = tuple(finding(name, verdict) for name, verdict in columns.items())
    when = "2027-01-15T08:00:00+00:00"
    return Drift(f"m:{version}", when, when, when, 0.1, 0.99, 0.1, 2000, 500, found)


class Hook:
    """A web server that keeps what it is told, and answers as it is told to."""

    def __init__(self, *answers: int) -> None:
        self.got: list[dict[str, Any]] = []
        self.answers = [*answers]
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                hook.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(hook.answers.pop(0) if hook.answers else 200)
                self.send_header("location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/hook?token=geheim"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_webhooks_get_what_they_read_and_are_tried_again(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", hook.url)
    hook.answers += [503, 429]
    pauses: list[float] = []
    settings = AlertSettings(webhooks=(Webhook(url="env:HOOK"),))
    assert send(settings, ALERT, pauses.append) == []
    assert len(hook.got) == 3 and pauses == [1.0, 4.0]
    assert hook.got[-1]["model"] == "m:v1" and "input.x: moved" in hook.got[-1]["text"]
    assert send(AlertSettings(webhooks=(Webhook(url="env:HOOK", kind="slack"),)), ALERT, pauses.append) == []
    assert hook.got[-1] == {"text": "m:v1: drift in 1 of 2 columns\ninput.x: moved"}


@pytest.mark.parametrize(("answer", "tries"), [(404, 1), (302, 1), (500, 4)])
def test_webhook_that_refuses_is_named_without_its_secret(
    hook: Hook, monkeypatch: pytest.MonkeyPatch, answer: int, tries: int
) -> None:
    monkeypatch.setenv("HOOK", hook.url)
    hook.answers += [answer] * tries
    (problem,) = send(AlertSettings(webhooks=(Webhook(url="env:HOOK"),)), ALERT, lambda _: None)
    assert str(answer) in problem and "env:HOOK" in problem and "geheim" not in problem and len(hook.got) == tries


def test_server_that_is_gone_is_said_after_all_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{free_port()}/geheim")
    pauses: list[float] = []
    (problem,) = send(AlertSettings(webhooks=(Webhook(url="env:HOOK"),)), ALERT, pauses.append)
    assert "not reached in 4 tries" in problem and "geheim" not in problem and pauses == [1.0, 4.0, 16.0]


class Inbox:
    """What a mail server got; refuses as many mails as it is told to."""

    def __init__(self) -> None:
        self.mails: list[Envelope] = []
        self.refuse: list[str] = []

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:  # noqa: N802
        if self.refuse:
            return self.refuse.pop(0)
        self.mails.append(envelope)
        return "250 OK"


@contextmanager
def mail_server(inbox: Inbox, **options: Any) -> Iterator[int]:
    controller = Controller(inbox, hostname="127.0.0.1", port=free_port(), **options)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def test_mail_reaches_a_real_server_and_is_tried_again() -> None:
    inbox = Inbox()
    inbox.refuse.append("451 later")
    with mail_server(inbox) as port:
        mail = Mail(host="127.0.0.1", port=port, tls="none", sender="hone@example.org", to=("a@example.org",))
        pauses: list[float] = []
        assert send(AlertSettings(mail=mail), ALERT, pauses.append) == []
        assert pauses == [1.0] and inbox.mails[0].rcpt_tos == ["a@example.org"]
        text = (inbox.mails[0].original_content or b"").decode()
        assert "Subject: m:v1: drift in 1 of 2 columns" in text and "input.x: moved" in text
        inbox.refuse.append("554 no")
        (problem,) = send(AlertSettings(mail=mail), ALERT, pauses.append)
        assert "refused, it answers 554" in problem and pauses == [1.0]


def test_mail_goes_encrypted_and_with_the_password_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    certificate, key = self_signed(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    inbox, seen = Inbox(), []

    def known(server: object, session: object, envelope: object, mechanism: str, given: LoginPassword) -> AuthResult:
        seen.append(given)
        return AuthResult(success=given.password == b"geheim")

    monkeypatch.setenv("PASSWORD", "geheim")
    with mail_server(inbox, tls_context=context, authenticator=known, auth_required=True) as port:
        mail = Mail(
            host="localhost", port=port, ca=certificate, sender="h@example.org", to=("a@example.org",), user="hone",
            password="env:PASSWORD",
        )  # fmt: skip
        assert send(AlertSettings(mail=mail), ALERT, lambda _: None) == []
        assert len(inbox.mails) == 1 and len(seen) == 1
        (problem,) = send(AlertSettings(mail=mail.model_copy(update={"ca": None})), ALERT, lambda _: None)
        assert "CERTIFICATE_VERIFY_FAILED" in problem and len(inbox.mails) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("webhooks: [{url: 'https://hooks.example.org/geheim'}]", "env:NAME or file:PATH"),
        ("webhooks: [{url: 'env:NOT_SET'}]", "NOT_SET: not set"),
        ("webhooks: [{url: 'env:PLACE'}]", "no http or https address"),
        ("repeat_hours: 3", "nobody would be told"),
        ("mail: {host: localhost, sender: a@b, to: []}", "mail.to"),
        ("mail: {host: h, sender: a@b, to: [c@d], user: u, password: 'file:/nowhere'}", "/nowhere"),
        ("webhook: []", "webhook"),
        ("[", "alerts.yaml"),
    ],
)
def test_wrong_settings_name_the_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str) -> None:
    monkeypatch.setenv("PLACE", "file:///etc/passwd")
    file = tmp_path / "alerts.yaml"
    file.write_text(text)
    with pytest.raises(HoneError, match=words) as caught:
        read_settings(file)
    assert "geheim" not in str(caught.value)


def test_people_are_told_once_then_of_what_is_new_again_after_a_day_and_of_the_end(tmp_path: Path) -> None:
    file = tmp_path / "watch.json"

    def told(found: Drift, hours: float) -> str | None:
        memory = Memory.of(file)  # as after a restart
        alert = to_tell(found, memory, 24 * HOUR_S, hours * HOUR_S)
        memory.keep()
        return alert and alert.state

    assert told(drift(a="met", b="undecided"), 0) is None
    assert told(drift(a="missed", b="met"), 1) == "drift"
    assert told(drift(a="missed", b="met"), 2) is None
    assert told(drift(a="undecided", b="met"), 3) is None  # it is not over until it is known to be
    assert told(drift(a="missed", b="met"), 4) is None
    assert told(drift(a="missed", b="missed"), 5) == "drift"
    assert told(drift(a="missed", b="missed"), 28) is None
    assert told(drift(a="missed", b="missed"), 29.5) == "drift"
    assert told(drift(a="met", b="undecided"), 30) is None
    assert told(drift(a="met", b="met"), 31) == "resolved"
    assert told(drift(a="met", b="met"), 32) is None
    file.write_text("{")
    assert told(drift(a="missed"), 33) == "drift"


def test_alert_that_reached_nobody_is_told_by_the_next_look(hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", hook.url)
    hook.answers += [404]
    said: list[str] = []
    watch = Watch(
        ["m"],
        lambda _: drift(a="missed"),
        Gauges(),
        AlertSettings(webhooks=(Webhook(url="env:HOOK"),)),
        say=said.append,
    )
    for _ in range(3):
        watch.turn()
    assert len(hook.got) == 2 and sum("not told" in line for line in said) == 1


def test_look_that_fails_shows_and_the_others_go_on(tmp_path: Path) -> None:
    def look(model: str) -> Drift:
        if model == "gone":
            raise HoneError("no model 'gone'")
        return drift(a="missed", b="undecided")

    said: list[str] = []
    watch = Watch(["gone", "m"], look, Gauges(), textfile=tmp_path / "drift.prom", say=said.append)
    assert [one.model for one in watch.turn()] == ["m:v1"]
    series = (tmp_path / "drift.prom").read_text()
    assert 'hone_drift_failed{model="gone"} 1.0' in series and 'hone_drift_failed{model="m"} 0.0' in series
    assert 'hone_drift_undecided_columns{model="m",version="v1"} 1.0' in series


def test_series_are_few_and_those_of_an_older_version_go(tmp_path: Path) -> None:
    gauges, file = Gauges(), tmp_path / "drift.prom"
    many = tuple(finding(f"input.t{n}[0]", "met", f"input.t{n}") for n in range(200))
    gauges.show(replace(drift(), findings=many), 1.0)
    gauges.write(file)
    assert file.read_text().count("hone_drift_effect{") == MOST_GROUPS + 1
    gauges.show(drift("v2", a="missed"), 2.0)
    gauges.write(file)
    assert 'version="v1"' not in file.read_text() and file.read_text().count("hone_drift_effect{") == 1


def test_prometheus_reads_the_series() -> None:
    import httpx

    gauges, port = Gauges(), free_port()
    gauges.show(drift(a="missed"), 1.0)
    gauges.serve("127.0.0.1", port)
    assert "hone_drift_effect_low" in httpx.get(f"http://127.0.0.1:{port}/metrics").text
