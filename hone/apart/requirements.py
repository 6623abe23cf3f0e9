"""What a model's Python needs installed, in the words of pip, and whether it is."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def problem_in(requirement: str) -> str:
    """Return why a text is no requirement that an index can fill, or an empty string."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = Requirement(requirement)
    except InvalidRequirement:
        return f"'{requirement}' is no requirement, such as 'statsmodels>=0.14'"
    if found.url:
        return f"'{requirement}' is an address; name a package of an index, and a version"
    return ""


def missing_here(requirements: Iterable[str]) -> list[str]:
    """Return those that aren't installed, or not in a version that will do, each with what there is."""
    from packaging.requirements import Requirement

    lines = []
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate():
            continue
        try:
            here = version(wanted.name)
        except PackageNotFoundError:
            lines.append(f"{text}, which is not installed")
            continue
        if not wanted.specifier.contains(here, prereleases=True):
            lines.append(f"{text}, and {here} is installed")
    return lines


def to_install(requirements: Iterable[str]) -> str:
    """Return the command that installs what is missing of requirements."""
    return "pip install " + " ".join(f"'{text}'" for text in requirements)


def versions_here(requirements: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of what requirements name, by canonical name; a model is proven with these."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found = {}
    for text in requirements:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate():
            found[str(canonicalize_name(wanted.name))] = version(wanted.name)
    return dict(sorted(found.items()))
