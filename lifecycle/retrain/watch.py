"""Retrain models when something asks for it: one process that looks now and then."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hone.errors import HoneError, RecipeError
from hone.recipe import load_recipe

from ..watching.alerts import Alert
from .journal import Journal, Run, now
from .run import retrain
from .triggers import due

MOST_BYTES = 4096
Drifted = Callable[[str], str]


@dataclass
class Watch:
    """What is watched.

    Attributes:
        recipes: of the models.
        told: hears what is being done, and what went wrong.
        ended: is given an alert of each run that ended, well or not.
        drifted: says of a model in words that its inputs have drifted; empty: they haven't, or nobody can tell.
        degraded: the same of quality that is lost.
    """

    recipes: Sequence[Path]
    told: Callable[[str], None]
    ended: Callable[[Alert], None] = lambda alert: None
    drifted: Drifted = lambda name: ""
    degraded: Drifted = lambda name: ""
    _failed: dict[Path, str] = field(default_factory=dict)

    def run(self, every_s: float, rounds: int | None = None) -> None:
        """Look every so many seconds, for ever or a number of times; a failed run ends nothing."""
        since = now()
        while rounds is None or rounds > 0:
            for recipe in self.recipes:
                self._look(recipe, since)
            rounds = None if rounds is None else rounds - 1
            if rounds != 0:
                time.sleep(every_s)

    def _look(self, recipe: Path, since: datetime) -> None:
        try:
            loaded = load_recipe(recipe)
            journal = Journal(loaded.recipe.name)
            asked = bool(journal.asked())
            why = due(loaded, journal, since, self.drifted, self.degraded)
            if not why:
                return
            self.told(f"{loaded.recipe.name}: {why}")
            run = retrain(recipe, why, by_hand=asked, told=lambda step: self.told(f"{loaded.recipe.name}: {step}"))
        except HoneError as error:
            self.told(f"{recipe}: {error}")
            self._alert(recipe, str(error))
            return
        self.told(f"{run.name}: {run.outcome}: {run.detail}")
        self.ended(_alert_of(run))

    def _alert(self, recipe: Path, problem: str) -> None:
        """Tell of what failed, once: it will fail at every look."""
        if self._failed.get(recipe) != problem:
            self._failed[recipe] = problem
            title = f"{recipe}: retraining failed; what is served has not changed"
            self.ended(Alert(recipe.name, "failed", title, (problem,), {"recipe": str(recipe), "problem": problem}))


def _alert_of(run: Run) -> Alert:
    assert run.outcome != ""
    title = f"{run.name} was retrained: {run.outcome}"
    lines = (f"because: {run.trigger}", run.detail)
    return Alert(run.candidate or run.name, run.outcome, title, lines, run.model_dump(include={"id", "name", "detail"}))


class _Door(ThreadingHTTPServer):
    """Takes requests for runs.

    Args:
        address: to listen on.
        names: of the models that may be asked for.
        token: of those who may ask.
    """

    daemon_threads = True

    def __init__(self, address: tuple[str, int], names: Sequence[str], token: str) -> None:
        super().__init__(address, _Asked)
        self.names, self.token = names, token


class _Asked(BaseHTTPRequestHandler):
    timeout = 10
    server: _Door

    def do_POST(self) -> None:
        given = self.headers.get("authorization", "").removeprefix("Bearer ")
        name = self.path.removeprefix("/retrain/")
        if not hmac.compare_digest(given.encode(), self.server.token.encode()):
            return self._answer(401, {"error": "give the token: Authorization: Bearer ..."})
        if name not in self.server.names:
            told = f"no model of that name is watched, but {', '.join(self.server.names)}"
            return self._answer(404, {"error": told})
        try:
            reason = self._reason()
        except ValueError:
            return self._answer(400, {"error": 'the body is no JSON object such as {"reason": "drift"}'})
        Journal(name).ask(reason)
        return self._answer(202, {"accepted": name})

    def _reason(self) -> str:
        length = int(self.headers.get("content-length") or 0)
        if not 0 <= length <= MOST_BYTES:
            raise ValueError
        content = json.loads(self.rfile.read(length) or b"{}")
        reason = content.get("reason") if isinstance(content, dict) else None
        return str(reason or "asked for over HTTP")[:200]

    def _answer(self, status: int, content: Mapping[str, str]) -> None:
        body = json.dumps(content).encode() + b"\n"
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Whoever watches is told of runs, not of requests."""


def listen(names: Sequence[str], port: int, token: str, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Take `POST /retrain/NAME` with a bearer token and an optional JSON body {"reason": ...}; run by a thread.

    Args:
        names: of the models that may be asked for.
        port: 0 takes a free one.
        token: at least 16 characters.

    Raises:
        RecipeError: the token is too short.
        OSError: the port is taken.
    """
    if len(token) < 16:
        raise RecipeError("HONE_RETRAIN_TOKEN: set a token of at least 16 characters for those who may ask")
    server = _Door((host, port), names, token)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
