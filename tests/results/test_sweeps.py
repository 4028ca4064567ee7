from __future__ import annotations

from report_records import make

from expunge.results.sweeps import sort_into_sweeps


def test_data_model_recipe_and_precision_make_sweeps() -> None:
    records = [
        make(key="a", recipe={"epochs": 30, "codes": None}),
        make(key="b", recipe={"epochs": 30, "codes": {"scale": 1}}, method="mnemonic_code"),
        make(key="c", recipe={"epochs": 10}, seed=1),
        make(key="d", data="mnist"),
        make(key="e", recipe={"epochs": 30}, provenance={"dtype": "bfloat16"}),
    ]
    sweeps = sort_into_sweeps(records)
    assert [len(sweep.records) for sweep in sweeps] == [1, 2, 1, 1]
    assert [sweep.title for sweep in sweeps] == [
        "digits, resnet9 (dtype=, epochs=10)",
        "digits, resnet9 (dtype=, epochs=30)",
        "digits, resnet9 (dtype=bfloat16, epochs=30)",
        "mnist, resnet9",
    ]
    assert len({sweep.slug for sweep in sweeps}) == 4
    assert sweeps[3].slug == "mnist-resnet9"


def test_slugs_differ_where_titles_look_alike() -> None:
    sweeps = sort_into_sweeps([make(data="a/b"), make(data="a b")])
    assert [sweep.slug for sweep in sweeps] == ["a-b-resnet9", "a-b-resnet9-2"]


def test_settings_of_one_cell_get_a_row_each() -> None:
    records = [make(key=str(lr), settings={"lr": lr, "epochs": 5}) for lr in (0.1, 0.2)]
    records.append(make(key="n", method="none"))
    (sweep,) = sort_into_sweeps(records)
    assert sorted(sweep.method_of) == ["none", "rem lr=0.1", "rem lr=0.2"]
    assert set(sweep.method_of.values()) == {"none", "rem"}
    assert {record.method for record in sweep.records} == set(sweep.method_of)
    assert sweep.notes == ("rem ran with 2 settings; each has a row.",)


def test_many_differences_are_numbered() -> None:
    names = [f"a_long_setting_{number}" for number in range(4)]
    records = [make(key=str(value), settings=dict.fromkeys(names, value)) for value in (1, 2)]
    (sweep,) = sort_into_sweeps(records)
    assert sorted(sweep.method_of) == ["rem #1", "rem #2"]


def test_settings_by_cell_stay_one_row() -> None:
    records = [make(key=str(place), regularity=place, settings={"lr": place}) for place in (0.0, 0.5)]
    (sweep,) = sort_into_sweeps(records)
    assert list(sweep.method_of) == ["rem"]
    assert "each in other cells" in sweep.notes[0]


def test_the_newest_of_the_same_cell_counts() -> None:
    records = [
        make(key=key, uxh=uxh, provenance={"created": f"2026-11-{day}"})
        for key, uxh, day in (("b", 0.5, "21"), ("a", 0.1, "22"))
    ]
    (sweep,) = sort_into_sweeps(records)
    assert [record.uxh for record in sweep.records] == [0.1]
    assert sweep.notes[0].startswith("1 older record of cells")


def test_map_and_forgetting_are_kept_apart() -> None:
    forgetting = make(
        key="f", task="classes", regularity=None, discovery=None, task_settings={"classes": [3]}
    )
    sweeps = sort_into_sweeps([make(), forgetting])
    assert sorted((sweep.on_map, len(sweep.records)) for sweep in sweeps) == [(False, 1), (True, 1)]
