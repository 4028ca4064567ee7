"""What each setting of a method is worth: one metric over the values of one setting at a time, as a picture.

Usage: python benchmarks/settings_picture.py STORE --out FILE.svg [--metric accuracy_gaps] > FILE.csv

STORE is the folder of a sweep whose recipes differ in one setting of a method each, as those of natmu-settings do. The
value of every other setting is that which most records of the method have.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

import altair as alt
import pandas as pd
import vl_convert

from expunge.store.record import Record
from expunge.store.store import Store


def rows(records: list[Record], metric: str) -> pd.DataFrame:
    """One row for each value of a setting: method, setting, value, and the metric in percent."""
    found = []
    for method in sorted({record.method for record in records}):
        ran = [record for record in records if record.method == method and record.status == "done"]
        names = sorted({name for record in ran for name in record.settings})
        usual = {
            name: Counter(str(record.settings.get(name)) for record in ran).most_common(1)[0][0]
            for name in names
        }
        for name in names:
            others = [one for one in names if one != name]
            line = [
                (record.settings[name], measured["value"])
                for record in ran
                if all(str(record.settings.get(one)) == usual[one] for one in others)
                and isinstance(record.settings.get(name), int | float)
                and (measured := record.metrics.get(metric)) is not None
                and measured.get("value") is not None
            ]
            if len({value for value, _ in line}) > 1:
                found += [(method, name, float(value), 100 * result) for value, result in line]
    return pd.DataFrame(found, columns=["method", "setting", "value", "percent"])


def chart(table: pd.DataFrame, title: str) -> alt.Chart:
    """One panel a setting; the values stand in order, at equal distances."""
    return (
        alt.Chart(table, width=170, height=130)
        .mark_line(point=True)
        .encode(
            x=alt.X("value:O", title=None, axis=alt.Axis(format="~g", labelAngle=-40, labelOverlap="greedy")),
            y=alt.Y("percent:Q", title=title, scale=alt.Scale(zero=True)),
            color=alt.Color("method:N", title=None),
            facet=alt.Facet("setting:N", columns=4, title=None),
        )
        .resolve_scale(x="independent")
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--metric", default="accuracy_gaps")
    options = parser.parse_args()
    with Store(options.store) as store:
        table = rows(store.database.records(), options.metric)
    if table.empty:
        parser.error(
            f"no setting of {options.store} takes two values for which {options.metric!r} is recorded"
        )
    picture = chart(table, f"{options.metric.replace('_', ' ')}, percent")
    options.out.write_text(vl_convert.vegalite_to_svg(picture.to_dict()), encoding="utf-8")
    table = table.sort_values(["method", "setting", "value"])
    print(table.to_csv(index=False, float_format="%.6g"), end="")


if __name__ == "__main__":
    main()
