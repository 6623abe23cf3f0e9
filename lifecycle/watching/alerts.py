"""Tell people: by a webhook, one that Slack understands, or mail; each is tried again when it fails.

The settings are a YAML file. What is secret in them is named, not written: `env:NAME` or `file:PATH`.
"""

from __future__ import annotations

import json
import os
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hone.errors import HoneError, first_problem, one_line

TRIES = 4
FIRST_PAUSE_S = 1.0
TIMEOUT_S = 10.0
CLIENT_ERRORS = range(400, 500)
TOO_MANY = 429
PERMANENT = 500
"""Answers of a mail server from here on stay as they are (RFC 5321)."""


class AlertError(HoneError):
    """An alert that reached nobody. The message names the channel and why, and no secret."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _named(value: str) -> str:
    if not value.startswith(("env:", "file:")):
        raise ValueError("name where the secret is: env:NAME or file:PATH")
    return value


class Webhook(_Strict):
    """An address that gets a POST."""

    url: str = Field(description="env:NAME or file:PATH, where the address stands.")
    kind: Literal["json", "slack"] = "json"

    _is_named = field_validator("url")(_named)


class Mail(_Strict):
    """A mail server."""

    host: str
    port: int = Field(587, ge=1, le=65535)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    ca: Path | None = Field(None, description="Certificates that the server's is checked with; null: the system's.")
    sender: str
    to: tuple[str, ...] = Field(min_length=1)
    user: str = ""
    password: str = "env:HONE_SMTP_PASSWORD"

    _is_named = field_validator("password")(_named)


class AlertSettings(_Strict):
    """The file that `hone drift watch --alert` reads."""

    webhooks: tuple[Webhook, ...] = ()
    mail: Mail | None = None
    repeat_hours: float = Field(24.0, gt=0, description="An alert that still holds is told again after so long.")


@dataclass(frozen=True)
class Alert:
    """What is told.

    Attributes:
        model: tag.
        state: drift, quality, or resolved; of a retraining what became of it.
        title: one line.
        lines: more of them.
        details: for programs.
    """

    model: str
    state: Literal["drift", "quality", "resolved", "promoted", "candidate", "kept", "undecided", "failed"]
    title: str
    lines: tuple[str, ...]
    details: dict[str, Any]


def read_settings(file: Path) -> AlertSettings:
    """Return the settings of a file; the secrets that it names must be there.

    Raises:
        HoneError: naming the field, variable or file that is wrong.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text())
        settings = AlertSettings.model_validate(content or {})
    except OSError as error:
        raise HoneError(f"{file}: cannot be read: {error.strerror or error}") from None
    except yaml.YAMLError as error:
        raise HoneError(f"{file}: {one_line(error)}") from None
    except ValidationError as error:
        raise HoneError(f"{file}: {first_problem(error)}") from None
    if not settings.webhooks and settings.mail is None:
        raise HoneError(f"{file}: neither webhooks nor mail; nobody would be told")
    for webhook in settings.webhooks:
        if not secret(webhook.url).startswith(("http://", "https://")):
            raise HoneError(f"{file}: webhooks: what {webhook.url} holds is no http or https address")
    if settings.mail is not None and settings.mail.user:
        secret(settings.mail.password)
    return settings


def secret(place: str) -> str:
    """Return what stands at `env:NAME` or `file:PATH`.

    Raises:
        HoneError: nothing stands there.
    """
    kind, _, name = place.partition(":")
    try:
        text = os.environ.get(name, "") if kind == "env" else Path(name).read_text()
    except OSError as error:
        raise HoneError(f"{name}: cannot be read: {error.strerror or error}") from None
    if not text.strip():
        raise HoneError(f"{name}: {'not set' if kind == 'env' else 'empty'}; alerts need it")
    return text.strip()


def send(settings: AlertSettings, alert: Alert, pause: Callable[[float], None] = time.sleep) -> list[str]:
    """Tell all channels; return a line for each that was not reached after several tries."""
    problems = []
    channels: list[tuple[str, Callable[[], None]]] = []
    for webhook in settings.webhooks:
        channels.append((f"webhook {webhook.url}", partial(_post, webhook, alert)))
    if (mail := settings.mail) is not None:
        channels.append((f"mail by {mail.host}", partial(_mail, mail, alert)))
    for name, tell in channels:
        try:
            _insist(tell, pause)
        except HoneError as error:
            problems.append(f"{name}: {error}")
    return problems


def _insist(tell: Callable[[], None], pause: Callable[[float], None]) -> None:
    """Try several times, with longer pauses; what can't get better is not tried again."""
    for turn in range(TRIES):
        try:
            return tell()
        except AlertError:
            raise
        except (OSError, smtplib.SMTPException) as error:
            if turn == TRIES - 1:
                raise HoneError(f"not reached in {TRIES} tries: {_reason(error)}") from None
            pause(FIRST_PAUSE_S * 4**turn)
    return None


def _reason(error: Exception) -> str:
    """Return why, without the address: it may be a secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answers {error.code}"
    if isinstance(error, urllib.error.URLError):
        return one_line(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
    return one_line(error)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is told to one address is not told to another."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(webhook: Webhook, alert: Alert) -> None:
    text = "\n".join([alert.title, *alert.lines])
    content = {"text": text} if webhook.kind == "slack" else {**alert.details, "text": text}
    request = urllib.request.Request(
        secret(webhook.url), json.dumps(content).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT_S):  # nosec B310 - http(s) only
            return
    except urllib.error.HTTPError as error:
        if error.code != TOO_MANY and (error.code in CLIENT_ERRORS or error.code < CLIENT_ERRORS.start):
            raise AlertError(f"refused, it answers {error.code}") from None
        raise


def _mail(mail: Mail, alert: Alert) -> None:
    message = EmailMessage()
    message["Subject"], message["From"], message["To"] = alert.title, mail.sender, ", ".join(mail.to)
    message.set_content("\n".join([alert.title, "", *alert.lines]))
    try:
        with _connected(mail) as connection:
            connection.send_message(message)
    except smtplib.SMTPResponseException as error:
        if error.smtp_code >= PERMANENT:
            raise AlertError(f"refused, it answers {error.smtp_code}") from None
        raise
    except smtplib.SMTPRecipientsRefused:
        raise AlertError("refused, it takes none of the recipients") from None


@contextmanager
def _connected(mail: Mail) -> Iterator[smtplib.SMTP]:
    context = ssl.create_default_context(cafile=mail.ca)
    if mail.tls == "tls":
        connection: smtplib.SMTP = smtplib.SMTP_SSL(mail.host, mail.port, timeout=TIMEOUT_S, context=context)
    else:
        connection = smtplib.SMTP(mail.host, mail.port, timeout=TIMEOUT_S)
    with connection:
        if mail.tls == "starttls":
            connection.starttls(context=context)
        if mail.user:
            connection.login(mail.user, secret(mail.password))
        yield connection
