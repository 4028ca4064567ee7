"""Pages that the code writes: one a method, one a metric, the commands. A hook of MkDocs."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import method_results
import typer
import typeset
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from expunge.cli import app
from expunge.methods.base import Method
from expunge.metrics.base import Metric
from expunge.registry import METHODS, METRICS
from expunge.results.method_facts import MethodFacts, method_facts
from expunge.settings import entries, meanings

ROOT = Path(__file__).parents[1]
_SECTION = re.compile(r"^(Args|Raises|Returns|Attributes):$")
_MATH = re.compile(
    r" (=|<-|>=|<=|~|>|<|!=|∪) |\|\||\|[a-zA-Z]_|\bmin_|\bmax_|\bmin over\b|\w\^\d|\(1 - |^[A-Z]_\w+(, [A-Z]_\w+)*: "
)
_NAMED = re.compile(r"(Source|Departures?|Symbols|Errata)\b[^:]*: ")
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(((?:\.\./)+(?:src|benchmarks|examples|tests)/[^)]+)\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and name them in the navigation."""
    pages = {
        "Methods": {f"methods/{name}.md": method_page(name) for name in METHODS.names()},
        "Metrics": {"metrics/index.md": _metrics()},
    }
    pages["Metrics"] |= {f"metrics/{name}.md": metric_page(name) for name in METRICS.names()}
    for each in (*pages.values(), {"commands.md": commands_page()}):
        for path, text in each.items():
            files.append(File.generated(config, path, content=text))
    written = sorted(
        file.src_uri for file in files if re.fullmatch(r"results/(?!index)[\w-]+\.md", file.src_uri)
    )
    pages["Results"] = dict.fromkeys(written, "")
    for part in config.nav or []:
        for title in pages:
            if title in part:
                part[title] = [*part[title], *pages[title]]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead from the table of methods to their pages, and from the documentation to nowhere outside it.

    The three lines of a page of results become three paragraphs.
    """
    markdown = re.sub(r"\n(?=\*\*(?:Answer|How sure)\.\*\*)", "\n\n", markdown)
    if page.file.src_uri == "methods.md":
        markdown = re.sub(r"^\| `(\w+)`", r"| [`\1`](methods/\1.md)", markdown, flags=re.MULTILINE)
    return _OUTSIDE.sub(lambda link: f"{link[1]} (`{link[2].lstrip('./')}`)", markdown)


def method_page(name: str) -> str:
    """Return the page of a method as Markdown: its card, its docstring, its settings."""
    kind: type[Method] = METHODS.get(name)
    found = method_facts(name)
    assert found is not None
    card = {
        "reads": ", ".join(found.needs) or "nothing", "changes": found.touches, "cost": f"{found.cost} of a retraining",
        "original model": f"trained by `Recipe({found.preparation}=...)`" if found.preparation else "any",
    }  # fmt: skip
    if found.source:
        card["source"] = found.source
    rows = "\n".join(f"| {key} | {value} |" for key, value in card.items())
    summary, body = _docstring(kind)
    fails = method_results.section(
        name,
        method_results.read(ROOT / "docs" / "results"),
        _limits(kind, found),
        (ROOT / "docs" / "recalibration.md").read_text(encoding="utf-8"),
    )
    return (
        f"---\nhide: [toc]\n---\n# {name}\n\n{summary}\n\n| | |\n|---|---|\n{rows}\n\n"
        f"## What it does\n\n{body}\n\n{fails}\n{_settings(kind)}\n"
        f"## Use\n\n```python\n{_use(name, found.needs)}\n```\n\n```sh\nexpunge describe {name}\n```\n"
    )


def _limits(kind: type[Method], found: MethodFacts) -> list[str]:
    """Return what keeps a method from a use, whatever was measured."""
    said = []
    if "truth" in found.needs:
        said.append("An oracle: it reads true labels, which nobody has outside an experiment.")
    if found.preparation:
        said.append(
            f"The original model must have been trained for it, by `Recipe({found.preparation}=...)`: a checkpoint "
            "that is there already cannot be repaired with it."
        )
    if "classes" in found.needs:
        said.append("It forgets whole classes and nothing smaller.")
    if "unseen" in found.needs:
        said.append("It needs labelled data that the original model has not seen.")
    if kind.perturbs_inputs:
        said.append(
            "It makes inputs out of others: images, and not tokens or columns that must stay what they are."
        )
    if kind.hides_only:
        said.append("It hides and does not forget: the features of the classes stay as they are.")
    return said


def _use(name: str, needs: tuple[str, ...]) -> str:
    if "truth" in needs or "codes" in needs:
        return "# needs what only an experiment knows, or a prepared model: see expunge map and expunge bench"
    return f'expunge.unlearn(model, train_set, forget=bad_indices, method="{name}")'


def _settings(kind: type[Any]) -> str:
    space = kind.search_space()
    told = meanings(kind)
    lines = ["## Settings", "", "| setting and default | meaning |", "|---|---|"]
    for each in dataclasses.fields(kind):
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        tried = f" `tune` tries {_cell(str(space[each.name]))}." if each.name in space else ""
        lines.append(
            f"| `{each.name}` = `{default!r}` | {typeset.inline(_cell(told.get(each.name, '')), strict=True)}{tried} |"
        )
    return "\n".join([*lines, ""]) + "\n" if len(lines) > 4 else ""


def _metrics() -> str:
    lines = ["# Metrics", "", "| name | what it measures | unit | better | beside |", "|---|---|---|---|---|"]
    for name in METRICS.names():
        kind: type[Metric] = METRICS.get(name)
        lines.append(
            f"| [`{name}`]({name}.md) | {_cell(_links(METRICS.summary(name)))} | {_unit(kind)} | {kind.better} | "
            f"{kind.compares} |"
        )
    return "\n".join([*lines, "", "A metric that is not defined for a task says why.", ""])


def metric_page(name: str) -> str:
    """Return the page of a metric as Markdown: unit, direction, definition, source."""
    kind: type[Metric] = METRICS.get(name)
    summary, body = _docstring(kind)
    card = {
        "unit": _unit(kind),
        "better": _BETTER.get(kind.better, kind.better),
        "compared with": str(kind.compares),
    }
    if kind.source:
        card["source"] = kind.source
    rows = "\n".join(f"| {key} | {value} |" for key, value in card.items())
    return f"# {name}\n\n{summary}\n\n| | |\n|---|---|\n{rows}\n\n{body}\n{_formula(kind)}"


_BETTER = {"reference": "closer to the retrained model (or the oracle, where data was corrupted)"}


def _unit(kind: type[Metric]) -> str:
    return "fraction, in [0, 1]" if kind.unit == "fraction" else kind.unit or "none"


def _formula(kind: type[Any]) -> str:
    """Return the definitions of the public functions that a metric names or calls."""
    module = sys.modules[kind.__module__]
    told = [_function(name) for name in re.findall(r":func:`~?([\w.]+)`", kind.__doc__ or "")]
    source = "".join(inspect.getsource(each) for each in kind.__mro__ if each.__module__ == kind.__module__)
    called = [
        each for name, each in inspect.getmembers(module, inspect.isfunction)
        if each.__module__.startswith("expunge.metrics.") and not name.startswith("_")
        and re.search(rf"\b{name}\b", source) and "Evaluated" not in str(inspect.signature(each))
    ]  # fmt: skip
    parts = []
    for each in dict.fromkeys([*filter(None, told), *called]):
        summary, body = _docstring(each)
        signature = re.sub(r"(: |-> )'([^']+)'", r"\1\2", str(inspect.signature(each)))
        parts.append(f"### `{each.__name__}{signature}`\n\n{summary}\n\n{body}\n")
    return "\n## Definition\n\n" + "\n".join(parts) if parts else ""


def _function(path: str) -> Callable[..., Any] | None:
    """Return what a reference of a docstring leads to, if it is a public path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name) if module else None


def commands_page() -> str:
    """Return every command with its options, as --help has them."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    parts = ["# Commands\n\n`expunge COMMAND --help` prints the same.\n"]
    for name, command in group.commands.items():
        parts.append(f"## expunge {name}\n\n{inspect.cleandoc(command.help or '')}\n")
        parts.append("| option | meaning | default |\n|---|---|---|")
        for each in command.params:
            flags = (
                " / ".join([*each.opts, *each.secondary_opts])
                if each.param_type_name == "option"
                else each.name
            )
            default = (
                "" if each.default in (None, False, ()) or callable(each.default) else f"`{each.default}`"
            )
            parts.append(f"| `{flags}` | {_cell(getattr(each, 'help', '') or '')} | {default} |")
        parts.append("")
    return "\n".join(parts)


def _docstring(target: Any) -> tuple[str, str]:
    """Return the first line and the rest of a docstring as Markdown; formulas are typeset."""
    text = inspect.getdoc(target) or ""
    first, _, rest = text.partition("\n")
    formula = _is_formula([first], after=False)
    return typeset.inline(_links(first), strict=not formula), "\n".join(_blocks(rest))


def _blocks(text: str) -> Iterator[str]:
    """Yield a docstring's paragraphs as Markdown; those with a formula, and the steps around them, keep their lines."""
    formula = list[str]()
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.splitlines()
        if _is_formula(lines, after=bool(formula)):
            formula.append(block)
            continue
        if formula:
            yield _formulas(formula)
            formula = []
        if not lines:
            continue
        if section := _SECTION.match(lines[0]):
            if section[1] != "Args":  # the settings have a table of their own
                yield f"**{section[1]}**\n"
                items = [f"- `{name}`: {_prose(told)}" for name, told in entries(block, section[1]).items()]
                yield from items or [_prose(" ".join(_joined(lines[1:])))]
                yield ""
        else:
            named = _NAMED.match(block)
            told = block[named.end() :].splitlines() if named else lines
            if named and named[1] == "Symbols":
                yield f"**Symbols:** {typeset.inline(' '.join(_joined(told)))}\n"
                continue
            said = _prose(" ".join(_joined(told)) if not _is_list(told) else _listed(told))
            yield (f"**{_links(named[0][:-2])}:** {said}" if named else said) + "\n"
    if formula:
        yield _formulas(formula)


def _formulas(blocks: list[str]) -> str:
    return typeset.block(re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", "\n\n".join(blocks)))


def _listed(lines: list[str]) -> str:
    """Return lines with an empty one before each item, as Markdown asks of a list that begins after a text."""
    return re.sub(r"\n(?=(?:- |\d+\. ))", "\n\n", "\n".join(lines))


def _joined(lines: list[str]) -> list[str]:
    return [line.strip() for line in lines]


def _is_list(lines: list[str]) -> bool:
    return any(re.match(r"\s*(- |\* |\d+\. )", line) for line in lines)


def _is_formula(lines: list[str], *, after: bool) -> bool:
    """Return whether a block holds a formula, or goes on with the steps of one (``after`` another)."""
    if not lines or _SECTION.match(lines[0]) or _NAMED.match(lines[0]):
        return False
    steps = after and re.match(r"\d+\. |\s", lines[0]) is not None
    return steps or any(_MATH.search(re.sub(r"`[^`]*`", "", line)) for line in lines)


def _prose(text: str) -> str:
    return typeset.inline(_links(text), strict=True)


def _links(text: str) -> str:
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    text = text.replace("``", "`")
    text = re.sub(r"(?<![`\w*])\*(?=[\s).,;])", r"\\*", text)  # a mark, or a product, and no emphasis
    return re.sub(r"(?<!`)<(?=[a-zA-Z/])", "&lt;", text)


def _cell(text: str) -> str:
    return _links(text).replace("|", "\\|").replace("\n", " ")
