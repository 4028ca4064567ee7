"""Pages from templates; everything from outside is escaped."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from expunge.results.wording import printable


def render(template: str, **values: Any) -> str:
    """Return a page from a file of ``results/templates``; ``style`` is the style sheet of every page."""
    return str(_templates().get_template(template).render(style=Markup(asset("page.css")), **values))


def asset(name: str) -> str:
    """Return a file of ``results/templates``."""
    return resources.files("expunge").joinpath("results", "templates", name).read_text(encoding="utf-8")


def embedded_json(value: Any) -> Markup:
    """Return JSON that cannot end the ``<script>`` element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_controls,
    )


def _without_controls(value: Any) -> Any:
    """Keep control characters off the page; line breaks stay."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return "\n".join(printable(line) for line in value.splitlines())
