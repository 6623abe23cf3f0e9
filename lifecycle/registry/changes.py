"""Changes of what aliases mean: a version is proposed, promoted, gone back from, or noted something of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ValidationError

from hone import store
from hone.errors import HoneError, StoreError, first_problem
from hone.recipe import LoadedRecipe, Recipe, load_recipe
from hone.store.registry import Pointer, Registry, change, pointer_to, registered

from .gates import Asked, Gate, gates
from .history import entered

MOST_NOTE = 1000
"""Characters of a note."""


class PromotionError(HoneError):
    """A version that isn't promoted: a gate is missed, or what was looked at doesn't tell."""

    def __init__(self, message: str, *, undecided: bool) -> None:
        super().__init__(message)
        self.exit_code = 4 if undecided else 3


@dataclass(frozen=True)
class Promotion:
    """What became of a promotion.

    Attributes:
        tag: that was asked for.
        before: the champion's, or an empty string.
        gates: every one.
    """

    tag: str
    before: str
    gates: tuple[Gate, ...]

    @property
    def closed(self) -> list[Gate]:
        """Gates that it doesn't pass."""
        return [gate for gate in self.gates if not gate.passed]

    @property
    def undecided(self) -> bool:
        """What was looked at doesn't tell, and nothing is missed."""
        return bool(self.closed) and all(gate.verdict == "undecided" for gate in self.closed)

    @property
    def why_closed(self) -> str:
        return "; ".join(f"{gate.name}: {gate.detail}" for gate in self.closed)

    def details(self, reason: str) -> dict[str, str]:
        """For the history and the audit log: values are texts there."""
        evidence = json.dumps([asdict(gate) for gate in self.gates])
        return {"from": self.before, "to": self.tag, "reason": reason, "gates": evidence}

    def refuse(self) -> None:
        """Raise PromotionError when a gate is closed."""
        if self.closed:
            raise PromotionError(f"{self.tag} is not promoted: {self.why_closed}", undecided=self.undecided)


def propose(recipe: Path, tags: Sequence[str], winner: str) -> None:
    """Make the winner of a run the `candidate`, and remember what its recipe asks of a promotion.

    Args:
        recipe: of the run.
        tags: that the run stored.
        winner: one of them.

    Raises:
        HoneError: it can't be written.
    """
    terms = load_recipe(recipe).recipe.model_dump(mode="json", by_alias=True)
    found = [store.resolve(tag) for tag in tags]
    best = next(entry for entry in found if entry.tag == winner)

    def changed(before: Registry) -> Registry:
        kept = {**before.terms, **{entry.version: terms for entry in found}}
        return before.pointing({"candidate": pointer_to(best)}).model_copy(update={"terms": kept})

    with entered("propose", winner) as details:
        details["to"] = winner
        change(best.name, changed)


def examine(
    reference: str,
    *,
    waived: Sequence[str] = (),
    approval: str = "",
    recipe: Path | None = None,
    sketches: Path | None = None,
) -> Promotion:
    """Look at every gate of a promotion, and change nothing.

    Args:
        reference: of the store; a bare NAME is its candidate, or where there is none what NAME means.
        waived: gates that are let pass.
        approval: a person's reason.
        recipe: whose evaluation rows, metric and limits count; None: the rows that the store keeps, and what the run
            that made the version was asked.
        sketches: folder that services write sketches of traffic to; None: what they are asked plays no part.

    Raises:
        StoreError: no such version, or it is the champion.
        ArtifactError: it is corrupt, or may not run here.
        RecipeError: the recipe is wrong.
    """
    candidate = _meant(reference)
    aliases = registered(candidate.name).aliases
    if "champion" in aliases and aliases["champion"] == pointer_to(candidate):
        raise StoreError(f"{candidate.tag} is {candidate.name}@champion already")
    champion = store.resolve(f"{candidate.name}@champion") if "champion" in aliases else None
    loaded = load_recipe(recipe) if recipe else terms_of(candidate)
    asked = Asked(candidate, champion, loaded, tuple(waived), approval, recipe is not None, sketches)
    return Promotion(candidate.tag, champion.tag if champion else "", tuple(gates(asked)))


def promote(promotion: Promotion, reason: str) -> dict[str, str]:
    """Make what was examined the champion, and the champion `previous`; return what the audit log should hold.

    Raises:
        PromotionError: a gate is closed.
        StoreError: the champion is another one than when it was examined, or the registry can't be written.
        HoneError: the history can't be.
    """
    entry = store.resolve(promotion.tag)
    target = pointer_to(entry)

    def changed(before: Registry) -> Registry:
        champion = before.aliases.get("champion")
        if (f"{entry.name}:{champion.version}" if champion else "") != promotion.before:
            raise StoreError(f"{entry.name}@champion changed meanwhile; promote again")
        aliases: dict[str, Pointer | None] = {"champion": target, "previous": champion}
        if before.aliases.get("candidate") == target:
            aliases["candidate"] = None
        past = (*before.past, *filter(None, [before.aliases.get("previous")]))
        return before.pointing(aliases, past)

    with entered("promote", promotion.tag) as details:
        details.update(promotion.details(reason))
        promotion.refuse()
        change(entry.name, changed)
    return details


def rollback(name: str, reason: str) -> dict[str, str]:
    """Make `previous` the champion again, at once: its files are checked, nothing is measured or fetched.

    What was champion is no alias's any more; `previous` is what was champion before the one that is gone back to.

    Returns:
        What the audit log should hold.

    Raises:
        StoreError: there is nothing to go back to.
        ArtifactError: it is corrupt.
    """
    with entered("rollback", name) as details:
        details["reason"] = reason
        entry = store.resolve(f"{name}@previous")
        entry.opened()

        def changed(before: Registry) -> Registry:
            champion, target = before.aliases.get("champion"), pointer_to(entry)
            if before.aliases.get("previous") != target:
                raise StoreError(f"{name}@previous changed meanwhile; roll back again")
            details.update({"from": f"{name}:{champion.version}" if champion else "", "to": entry.tag})
            earlier = before.past[-1] if before.past else None
            return before.pointing({"champion": target, "previous": earlier}, before.past[:-1])

        change(name, changed)
    return details


def annotate(reference: str, notes: Mapping[str, str]) -> dict[str, str]:
    """Note texts of a version by key; an empty text takes a note away. Returns what the audit log should hold.

    Raises:
        StoreError: no such version, or a text is too long.
    """
    entry = store.resolve(reference)
    for key, text in notes.items():
        if not key or len(key) > 100 or len(text) > MOST_NOTE:
            raise StoreError(f"note '{key[:100]}': a key has 1 to 100 characters, a text at most {MOST_NOTE}")

    def changed(before: Registry) -> Registry:
        merged = {key: text for key, text in {**before.notes.get(entry.version, {}), **notes}.items() if text}
        others = {version: kept for version, kept in before.notes.items() if version != entry.version}
        return before.model_copy(update={"notes": {**others, **({entry.version: merged} if merged else {})}})

    with entered("annotate", entry.tag) as details:
        details["notes"] = json.dumps(dict(notes))
        change(entry.name, changed)
    return details


def _meant(reference: str) -> store.Entry:
    """Return what is to be promoted; of a bare NAME the candidate."""
    bare = ":" not in reference and "@" not in reference
    if bare and "candidate" in registered(reference).aliases:
        return store.resolve(f"{reference}@candidate")
    return store.resolve(reference)


def terms_of(entry: store.Entry) -> LoadedRecipe | None:
    """Return the recipe that a version was made by, as it was then; None where the registry has none."""
    terms = registered(entry.name).terms.get(entry.version)
    if terms is None:
        return None
    try:
        return LoadedRecipe(recipe=Recipe.model_validate(terms), path=Path(f"the recipe of {entry.tag}"))
    except ValidationError as error:
        raise StoreError(f"the recipe of {entry.tag} in the registry: {first_problem(error)}") from None
