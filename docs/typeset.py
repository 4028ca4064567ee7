"""Typeset the formulas of docstrings, which are plain text to be read in a terminal, as HTML."""

from __future__ import annotations

import html
import re

_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "lambda": "λ",
    "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "Delta": "Δ", "Sigma": "Σ",
    "Lambda": "Λ", "sum": "∑", "inf": "∞",
}  # fmt: skip
_WRITTEN_OUT = ("sum",)  # also a word, where no index follows
_OPERATORS = {
    "<-": "←", "->": "→", ">=": "≥", "<=": "≤", "!=": "≠", "||": "‖", "..": "…", "*": "·", "-": "−",
    "~": "∼",
}  # fmt: skip
_SCRIPT = r"(?:\{[^{}]*\}|\([^()]*\)|-?[A-Za-z0-9]+)"
_TOKEN = re.compile(
    rf"""
    (?P<code>``[^`]+``|`[^`]+`|"[\w.]+")
  | (?P<norm>\|\|(?P<normed>(?:[_^]{_SCRIPT})+))                # ||x||_2^2
  | (?P<number>\d+(?:\.\d+)?(?:e-?\d+)?)
  | (?P<name>[A-Za-z]+\d?'?)(?P<scripts>(?:[_^]{_SCRIPT})*'?)
  | (?P<power>(?<=[\d)\]|])[_^]{_SCRIPT})
  | (?P<operator><-|->|>=|<=|!=|\|\||(?<=\s)\.\.(?=\s)|(?<=\s)\*(?=\s)|(?<=\s)~(?=\s)|(?<![\w])-(?=[\s\w(|]))
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_MEMBER = re.compile(r"(?:(?<![A-Za-z_])[a-z](?:_\w)?'?|\)) $")
"""What goes before "in" where it says that something is a member: a symbol or a tuple, and no word."""
_ARTICLES = ("a", "A", "I")


def block(text: str) -> str:
    """Return paragraphs that hold formulas, their lines kept, as one block."""
    return f'<div class="formula">{inline(text)}</div>\n'


def inline(text: str, *, strict: bool = False) -> str:
    """Return text with its formulas typeset.

    Args:
        text: words and formulas in plain notation: ``theta_1 <- a theta + (1 - a) theta_0``.
        strict: of words, that is: nothing but what has an index or a Greek name is a symbol.
    """
    return "".join(_written(match, text, strict) for match in _TOKEN.finditer(text))


def _written(match: re.Match[str], text: str, strict: bool) -> str:
    if code := match["code"]:
        if strict or code.startswith('"'):
            return code
        return f"<code>{html.escape(code.strip('`'))}</code>"
    if number := match["number"]:
        return number
    if match["norm"]:
        return "‖" + _scripts(match["normed"])
    if match["power"]:
        return _scripts(match["power"])
    if operator := match["operator"]:
        return operator if strict else _OPERATORS.get(operator, operator)
    if match["other"]:
        return match["other"] if strict else html.escape(match["other"], quote=False)
    return _symbol(match, text, strict)


def _symbol(match: re.Match[str], text: str, strict: bool) -> str:
    name, scripts = match["name"], match["scripts"]
    base, prime = name.rstrip("'"), "′" * name.endswith("'")
    if scripts.endswith("'"):
        scripts, prime = scripts[:-1], "′"
    if not scripts and (base in _WRITTEN_OUT or (name != base and len(base) > 1 and base not in _GREEK)):
        return match[0]
    if base == "in" and not strict and _is_member(text[: match.start()], text[match.end() :]):
        return "∈"
    letter = _GREEK.get(base) or _GREEK.get(base.rstrip("12"))  # lambda1 is a symbol with an index
    if letter is None and len(base) > 1:
        of_formula = scripts and not strict and _is_math(base, scripts)
        return base + _scripts(scripts) + prime if of_formula else match[0]
    if letter is None:
        if not scripts and (strict or not _alone(match, text)):
            return match[0]
        letter = base
    styled = letter if letter in "∑∞" else f"<var>{letter}</var>"
    if base[-1].isdigit():
        styled += f"<sub>{base[-1]}</sub>"
    return styled + prime + _scripts(scripts)


def _is_member(before: str, after: str) -> bool:
    """Return whether "in" says that something is a member of a set, as in ``i in D_f`` and not in a sentence."""
    return bool(_MEMBER.search(before) and not re.match(r" [a-z]{2}", after))


def _is_math(base: str, scripts: str) -> bool:
    """Return whether a longer name with an index is of a formula, as ``min_theta`` is and ``batch_size`` is not."""
    index = scripts.lstrip("_^").strip("{}()")
    return len(index) < 3 or index in _GREEK or base == "ce"


def _alone(match: re.Match[str], text: str) -> bool:
    """Return whether a single letter is a symbol: an article goes before a word, and none before an operator."""
    if match["name"] not in _ARTICLES:
        return not text[: match.start()].endswith("'")  # the model's
    before, after = text[: match.start()], text[match.end() :]
    if re.match(r"[(\[|^_]|\)|\s*(?:[=+*/<>~|]|- )", after) or before.endswith("|"):
        return True
    following = re.match(r" ([A-Za-z]+)(_?)", after)
    if not following or following[1] in _WRITTEN_OUT:
        return False
    return following[1] in _GREEK or (following[2] == "_" and len(following[1]) == 1)


def _scripts(text: str) -> str:
    """Return ``_1^2`` as an index and a power."""
    written, rest = "", text
    while found := re.match(rf"([_^])({_SCRIPT})", rest):
        rest = rest[found.end() :]
        inner = found[2][1:-1] if found[2].startswith("{") else found[2]
        nested = ""
        # In f_theta_1 the index of the index belongs to theta.
        if found[1] == "_" and (deeper := re.match(rf"_({_SCRIPT})", rest)):
            nested, rest = f"_{deeper[1]}", rest[deeper.end() :]
        tag = "sub" if found[1] == "_" else "sup"
        written += f"<{tag}>{_index(inner + nested)}</{tag}>"
    return written


def _index(text: str) -> str:
    word = text.isalpha() and len(text) > 1 and text not in _GREEK
    return text if word or text.isdigit() else inline(text.replace("-", "−"))
