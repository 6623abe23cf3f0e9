"""Retrain models when something asks for it: one process that looks now and then."""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hone.errors import HoneError, RecipeError
from hone.recipe import load_recipe

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
        ended: hears of each run that ended, well or not, with the error.
        drifted: says of a model in words that its inputs have drifted; empty: they haven't, or nobody can tell.
    """

    recipes: Sequence[Path]
    told: Callable[[str], None]
    ended: Callable[[Run | None, HoneError | None], None] = lambda run, error: None
    drifted: Drifted = lambda name: ""

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
            why = due(loaded, journal, since, self.drifted)
            if not why:
                return
            self.told(f"{loaded.recipe.name}: {why}")
            run = retrain(recipe, why, by_hand=asked, told=lambda step: self.told(f"{loaded.recipe.name}: {step}"))
        except HoneError as error:
            self.told(f"{recipe}: {error}")
            self.ended(None, error)
            return
        self.told(f"{run.name}: {run.outcome}: {run.detail}")
        self.ended(run, None)


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

    class Asked(BaseHTTPRequestHandler):
        timeout = 10

        def do_POST(self) -> None:
            given = self.headers.get("authorization", "").removeprefix("Bearer ")
            name = self.path.removeprefix("/retrain/")
            if not hmac.compare_digest(given.encode(), token.encode()):
                return self._answer(401, {"error": "give the token: Authorization: Bearer ..."})
            if name not in names:
                return self._answer(404, {"error": f"no model of that name is watched, but {', '.join(names)}"})
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
            return

    server = ThreadingHTTPServer((host, port), Asked)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
