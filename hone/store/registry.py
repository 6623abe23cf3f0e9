"""The registry file of a model: which of its stored versions the aliases mean, and what people noted of them.

It lies beside the store, one file a model, and is replaced whole: a reader sees it before a change or after. Who
changed what, when and why is in `history.jsonl` beside it, chained as audit logs are. `lifecycle.registry` writes both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.artifact import MANIFEST
from hone.errors import StoreError, did_you_mean, first_problem
from hone.files import atomic_write, hash_file, locked
from hone.names import is_tag_part, shown
from hone.store.entry import Entry, models_dir

FOLDER = "hone-registry"
HISTORY = "history.jsonl"
ALIASES = ("candidate", "champion", "previous")
KEPT = ("champion", "previous")
"""What they mean is served, or gone back to: it isn't removed."""
MOST_PAST = 20
"""Versions that were champion and are remembered as such, to go back to."""


class Pointer(BaseModel):
    """What an alias means.

    Attributes:
        version: of the model, in the store.
        manifest: sha256 of its `artifact.json`, which holds the hash of every file: the same tag with other content is
            not what was promoted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    manifest: str = Field(pattern=r"^[0-9a-f]{64}$")


class Registry(BaseModel):
    """`NAME.json`.

    Attributes:
        aliases: of `ALIASES`, those that mean something.
        past: what was champion before `previous`, the latest last.
        notes: texts by key, by version.
        terms: what the recipe of each version asks of a promotion, by version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    aliases: dict[str, Pointer] = Field(default_factory=dict)
    past: tuple[Pointer, ...] = ()
    notes: dict[str, dict[str, str]] = Field(default_factory=dict)
    terms: dict[str, dict[str, Any]] = Field(default_factory=dict)

    def aliases_of(self, version: str) -> list[str]:
        return [alias for alias in ALIASES if alias in self.aliases and self.aliases[alias].version == version]

    def pointing(self, aliases: Mapping[str, Pointer | None], past: tuple[Pointer, ...] | None = None) -> Registry:
        """Return it with other aliases; None takes one away."""
        kept = {alias: to for alias, to in {**self.aliases, **aliases}.items() if to is not None}
        return self.model_copy(update={"aliases": kept, "past": self.past if past is None else past[-MOST_PAST:]})


def folder() -> Path:
    """Return where the registry of the store that is in force lies."""
    return models_dir().resolve().parent / FOLDER


def file_of(name: str) -> Path:
    return folder() / f"{name}.json"


def registered(name: str) -> Registry:
    """Return the registry of a model; an empty one where nothing is registered.

    Raises:
        StoreError: its file can't be read.
    """
    if not is_tag_part(name):
        raise StoreError(f"no model {shown(name)} is registered")
    file = file_of(name)
    try:
        return Registry.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Registry(name=name)
    except OSError as error:
        raise StoreError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise StoreError(f"{file}: {first_problem(error)}") from None


def names() -> list[str]:
    """Return the models of which something is registered."""
    return sorted(file.stem for file in folder().glob("*.json"))


def change(name: str, changed: Callable[[Registry], Registry]) -> Registry:
    """Replace the registry of a model by what a function makes of it, one process at a time; return what it made.

    Raises:
        StoreError: the file can't be read or written; or whatever the function raises, and nothing is changed then.
    """
    registered(name)
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with locked(folder() / "lock"):
            before = registered(name)
            after = changed(before)
            if after != before:
                atomic_write(file_of(name), after.model_dump_json(indent=2) + "\n")
            return after
    except OSError as error:
        raise StoreError(f"{file_of(name)}: cannot be written: {error.strerror}") from error


def pointer_to(entry: Entry) -> Pointer:
    """Return what an alias for a stored artifact holds; raises ArtifactError when it can't be read."""
    entry.opened(verify=False)
    return Pointer(version=entry.version, manifest=hash_file(entry.path / MANIFEST))


def is_meant(pointer: Pointer, entry: Entry) -> bool:
    """True when a stored artifact is what an alias means: the same version with the same content."""
    same = entry.artifact is not None and pointer.version == entry.version
    return same and hash_file(entry.path / MANIFEST) == pointer.manifest


def meaning(name: str, alias: str) -> Pointer:
    """Return what `NAME@ALIAS` means.

    Raises:
        StoreError: there is no such alias, or it means nothing.
    """
    if alias not in ALIASES:
        raise StoreError(f"no alias {shown(alias)}{did_you_mean(alias[:100], ALIASES)}")
    pointer = registered(name).aliases.get(alias)
    if pointer is None:
        how = "hone optimize sets it" if alias == "candidate" else f"hone registry promote {name} sets it"
        raise StoreError(f"'{name}' has no {alias}; {how}")
    return pointer


def check_removal(entries: list[Entry]) -> None:
    """Raise StoreError when one of these may not leave the store: it is served under an alias, or gone back to."""
    for entry in entries:
        held = [alias for alias in registered(entry.name).aliases_of(entry.version) if alias in KEPT]
        if held:
            raise StoreError(
                f"{entry.tag} is {entry.name}@{held[0]}; promote another version first: hone registry promote"
            )


def forget(entry: Entry) -> None:
    """Take a version that left the store out of the registry, and the alias `candidate` with it."""

    def without(before: Registry) -> Registry:
        left = {a: to for a, to in before.aliases.items() if to.version != entry.version or a in KEPT}
        past = tuple(one for one in before.past if one.version != entry.version)
        notes, terms = ({v: x for v, x in one.items() if v != entry.version} for one in (before.notes, before.terms))
        return before.model_copy(update={"aliases": left, "past": past, "notes": notes, "terms": terms})

    if file_of(entry.name).is_file():
        change(entry.name, without)
