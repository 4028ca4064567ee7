from __future__ import annotations

from expunge.report.html import Html, element, escape, joined

EVIL = "</script><img src=x onerror=alert(1)>\"'&"


def test_text_and_attributes_are_escaped() -> None:
    made = element("td", EVIL, title=EVIL)
    assert "<img" not in made
    assert made.count('"') == 2  # those around the attribute
    assert element("p", Html("<b>x</b>"), "<b>") == "<p><b>x</b>&lt;b&gt;</p>"


def test_attributes() -> None:
    assert element("th", 3, class_="a", data_value=2, hidden=True, title=None, open=False) == (
        '<th class="a" data-value="2" hidden>3</th>'
    )
    assert element("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert joined(["a", None, Html("<br>")]) == "a<br>"


def test_control_characters_are_shown_and_lines_kept() -> None:
    assert escape("a\x1b[2J\nb\x00") == "a�[2J\nb�"
