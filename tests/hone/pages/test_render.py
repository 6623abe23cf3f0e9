"""Pages: what a template fills in, and what it must not."""

from __future__ import annotations

from pathlib import Path

import pytest
from jinja2 import UndefinedError

from hone.pages.render import render


def template(folder: Path, content: str) -> Path:
    file = folder / "one.html"
    blocks = {"title": "{{ title }}", "style": "p { margin: 0; }", "content": content}
    file.write_text(
        '{% extends "page.html" %}'
        + "".join(f"{{% block {name} %}}{text}{{% endblock %}}" for name, text in blocks.items())
    )
    return file


def test_page_has_the_shared_head_and_its_own_parts(tmp_path: Path) -> None:
    page = render(template(tmp_path, "<p>{{ text }}</p>"), title="T", text="words")
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert "<title>T</title>" in page and "<p>words</p>" in page
    assert page.index("body {") < page.index("p { margin: 0; }"), "a page's own style comes last, and wins"


def test_values_are_escaped(tmp_path: Path) -> None:
    page = render(template(tmp_path, "<p>{{ text }}</p>"), title="<b>", text="<script>")
    assert "<script>" not in page and "&lt;script&gt;" in page and "<title>&lt;b&gt;</title>" in page


def test_a_value_that_is_not_given_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="text"):
        render(template(tmp_path, "{{ text }}"), title="T")
