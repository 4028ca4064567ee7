"""The formulas of docstrings on the site: docs/typeset.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import typeset


def plain(text: str) -> str:
    """Without the marks of a variable, which stand around nearly every letter."""
    return text.replace("<var>", "").replace("</var>", "")


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("theta_1 <- a theta + (1 - a) theta_0", "θ<sub>1</sub> ← a θ + (1 − a) θ<sub>0</sub>"),
        ("sum_j l_j^-lambda >= 1e-8", "∑<sub>j</sub> l<sub>j</sub><sup>−λ</sup> ≥ 1e-8"),
        ("|mean_i ||f(x_i)||_2^2|", "|mean<sub>i</sub> ‖f(x<sub>i</sub>)‖<sub>2</sub><sup>2</sup>|"),
        ("(x, y) in D_f, y' != y", "(x, y) ∈ D<sub>f</sub>, y′ ≠ y"),
        ("D_f' without the entry in D_r", "D′<sub>f</sub> without the entry in D<sub>r</sub>"),
        ("f_theta_1(x) * f_(w, theta_2)", "f<sub>θ<sub>1</sub></sub>(x) · f<sub>(w, θ<sub>2</sub>)</sub>"),
        ("theta_{L-k+1 .. L}", "θ<sub>L−k+1 … L</sub>"),
        ("Mask(z)_k = -inf", "Mask(z)<sub>k</sub> = −∞"),
        ("min(lambda1, lambda2 / max eta)", "min(λ<sub>1</sub>, λ<sub>2</sub> / max η)"),
        ("the batch's mean and the k-th of ``max_epochs``", "the batch's mean and the k-th of <code>max_epochs</code>"),
        ("min_theta of max_epochs", "min<sub>θ</sub> of max_epochs"),
        ("p < 0 & q", "p &lt; 0 &amp; q"),
    ],
)  # fmt: skip
def test_a_formula(written: str, shown: str) -> None:
    assert plain(typeset.inline(written)) == shown


def test_what_is_a_symbol_and_what_a_word() -> None:
    assert typeset.inline("A copy of A = [a_1] is a model") == (
        "A copy of <var>A</var> = [<var>a</var><sub>1</sub>] is a model"
    )
    assert typeset.inline("a sum of one part") == "a sum of one part"


def test_prose_keeps_its_markdown_and_its_words() -> None:
    said = "`theta_0` of a batch_size - k over D_f, see *my_file* -> lr, from beta"
    assert typeset.inline(said, strict=True) == said.replace("D_f", "<var>D</var><sub>f</sub>").replace(
        "beta", "<var>β</var>"
    ).replace("<sub>f</sub>", "<sub><var>f</var></sub>")


def test_a_block_keeps_its_lines() -> None:
    assert typeset.block("1. m <- 0\n   then\n\n2. w") == (
        '<div class="formula">1. <var>m</var> ← 0\n   then\n\n2. <var>w</var></div>\n'
    )
