"""The splits of a running service, from outside: shown, set, ended, and judged."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hone.errors import HoneError

from .asking import Access, ask

CHANGE_S = 120.0
"""That loading the arms in every worker may take."""


class RefusedError(HoneError):
    """The service doesn't do, or doesn't tell, what it was asked."""


class UnreachableError(HoneError):
    """The service doesn't answer."""


@dataclass(frozen=True)
class Share:
    """An arm, as it is asked for.

    Attributes:
        name: of it.
        version: of the model, or an alias.
        weight: percent.
    """

    name: str
    version: str
    weight: float


@dataclass(frozen=True)
class RemoteSplit:
    """The split of one model of a service.

    Args:
        url: of the service.
        name: of the model.
        access: with a key that has the scope operate, or for `verdict` and `show` read.
    """

    url: str
    name: str
    access: Access

    @property
    def _path(self) -> str:
        return f"/v2/repository/models/{quote(self.name, safe='')}/split"

    def show(self) -> dict[str, Any]:
        """Return the split, null for none, and what its arms have done.

        Raises:
            UnreachableError: there is no service; RefusedError: it refuses.
        """
        return self._ask("GET", self._path)

    def set(self, arms: Sequence[Share], **rules: Any) -> dict[str, Any]:
        """Put a split in force; `rules` are sticky, salt, fallback and compare."""
        wanted = [{"name": arm.name, "version": arm.version, "weight": arm.weight} for arm in arms]
        parameters = {"arms": wanted, **{name: value for name, value in rules.items() if value}}
        return self._ask("POST", self._path, {"parameters": parameters}, CHANGE_S)

    def clear(self, answer: str = "") -> dict[str, Any]:
        """End the split; all requests go to the arm `answer`, or where it is empty to what answered before."""
        return self._ask("DELETE", self._path, {"parameters": {"answer": answer} if answer else {}}, CHANGE_S)

    def verdict(self, arm: str, limits: Mapping[str, float]) -> dict[str, Any]:
        """Return the verdict on an arm, and the evidence."""
        query = urlencode({"arm": arm, **{name: f"{share:g}" for name, share in limits.items()}})
        return self._ask("GET", f"/v2/rollout/{quote(self.name, safe='')}/verdict?{query}")

    def answers(self) -> str:
        """Return the version that answers requests which are not split."""
        found = self._ask("GET", f"/v2/models/{quote(self.name, safe='')}")
        return str(found["parameters"]["tag"]).partition(":")[2]

    def _ask(self, method: str, path: str, content: Any = None, timeout_s: float = 10.0) -> dict[str, Any]:
        body = b"" if content is None else json.dumps(content).encode()
        try:
            status, text = ask(method, self.url, path, self.access, body, timeout_s)
        except OSError as error:
            raise UnreachableError(f"{self.url} doesn't answer: {error.strerror or error}") from None
        try:
            found: Any = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise RefusedError(f"{self.url}{path} answers {status} with no object; is it a service of Hone?")
        if status != 200:
            raise RefusedError(f"{self.url}: {found.get('error', status)} ({status})")
        return found
