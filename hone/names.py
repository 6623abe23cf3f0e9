"""What models and versions may be called: one rule for recipes, the store, archives and manifests.

Names become folders, URLs, labels of metrics and image tags, so they are what BentoML's tags allow: lower case letters,
digits, '.', '_' and '-', beginning and ending with a letter or digit. None of them can be a path.
"""

from __future__ import annotations

import re

from hone.errors import StoreError

_REST = "(?:[a-z0-9._-]{{0,{}}}[a-z0-9])?"
TAG_PART = f"^[a-z0-9]{_REST.format(61)}$"
"""A name or version in the store, as a pattern: at most 63 characters, as BentoML has it."""

_TAG_PART = re.compile(TAG_PART)
_NAME = re.compile(f"[a-z0-9]{_REST.format(38)}")


def is_name(text: str) -> bool:
    """True for what a recipe may call its model and variants: 40 characters, because version and run are added."""
    return _NAME.fullmatch(text) is not None


def is_tag_part(text: str) -> bool:
    """True when a text may be a model's name or version in the store."""
    return _TAG_PART.fullmatch(text) is not None


def check_tag(name: str, version: str) -> None:
    """Raise StoreError when a name or version may not stand in the store; the message shows its beginning."""
    for kind, text in (("name", name), ("version", version)):
        if not is_tag_part(text):
            raise StoreError(
                f"{kind} {shown(text)}: must be 1-63 of a-z, 0-9, '.', '_', '-', starting and ending with a-z or 0-9"
            )


def shown(text: str) -> str:
    """Return a text that others made up, quoted, on one line and cut, for a message."""
    return repr(text if len(text) <= 80 else f"{text[:79]}…")
