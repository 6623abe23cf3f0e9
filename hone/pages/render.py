"""Pages: a template that fills in the blocks of `page.html`, which holds what every page begins and looks with."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """Return the page that a Jinja template makes of values, which are escaped unless it says that they are safe.

    Raises:
        jinja2.UndefinedError: the template names a value that it isn't given.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)
