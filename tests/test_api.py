"""What users call from Python: every label is asked for, with its description wherever there is one."""

from __future__ import annotations

import math
import unicodedata

import pytest
import torch

from glinerko import load_extractor
from glinerko.common import DataError, LoadError
from glinerko.corpus.processor import Window

TEXT = "당뇨병으로 내원하여 메트포르민 500mg을 투여하였다."
LABELS = ("Disease", "Drug", "Test")
DESCRIPTIONS = {
    "none": {},
    "some": {"Drug": "약물 성분"},
    "all": {"Disease": "질병", "Drug": "약물 성분", "Test": "검사"},
}


@pytest.fixture
def saved(model, tmp_path):
    """A function that saves a model with these labels and descriptions, and loads it as users do.

    The model finds everything, and lists in ``prompts`` what it was asked for.
    """

    def save(descriptions: dict[str, str], labels: tuple[str, ...] = LABELS):
        with torch.no_grad():
            model.count_pred[-1].bias[1] += 100.0
        model.configure(labels=labels, descriptions=descriptions, threshold=0.0)
        model.save_pretrained(tmp_path)
        loaded, prompts = load_extractor(tmp_path), []
        transform = loaded.processor._transform_schema
        loaded.processor._transform_schema = lambda *a, **k: prompts.append(transform(*a, **k)) or prompts[-1]
        loaded.prompts = prompts
        return loaded

    return save


def prompt(labels=LABELS, **descriptions: str) -> list[str]:
    described = "".join(f" [DESCRIPTION] {label}: {text}" for label, text in descriptions.items())
    return ["(", "[P]", f"entities{described}", "(", *(part for label in labels for part in ("[E]", label)), ")", ")"]


@pytest.mark.parametrize("descriptions", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_the_snippets_of_the_documentation_find_all_labels(saved, descriptions):
    extractor = saved(descriptions)
    found = extractor.extract_entities(TEXT, include_spans=True)
    assert list(found["entities"]) == list(LABELS)
    assert all(TEXT[mention["start"] : mention["end"]] == mention["text"] for mention in found["entities"]["Drug"])
    given = extractor.extract_entities(
        TEXT, extractor.label_schema.descriptions, threshold=extractor.threshold, include_spans=True
    )
    assert given == found
    assert all(each == prompt(**descriptions) for each in extractor.prompts)


@pytest.mark.parametrize("descriptions", DESCRIPTIONS.values(), ids=DESCRIPTIONS)
def test_all_ways_to_extract_ask_what_was_asked_in_training(saved, descriptions):
    extractor = saved(descriptions)
    one = extractor.extract_entities(TEXT)
    assert extractor.batch_extract_entities([TEXT, TEXT]) == [one, one]
    assert extractor.extract_entities_long(TEXT).keys() == one.keys()
    assert [set(each["entities"]) for each in extractor.batch_extract_entities_long([TEXT])] == [set(LABELS)]
    schema = extractor.create_schema().entities(extractor.label_schema.descriptions or list(LABELS))
    assert extractor.extract(TEXT, schema, threshold=0.0) == one
    (words,) = extractor.processor.split([TEXT])
    extractor.processor.collate([Window(TEXT, words, LABELS)], extractor.label_schema)
    assert len(extractor.prompts) >= 7
    assert all(each == prompt(**descriptions) for each in extractor.prompts)


OWN = {"Drug": "약물 성분"}
ASKED = {
    "nothing": (None, prompt(**OWN)),
    "an empty list": ([], prompt(**OWN)),
    "an empty object": ({}, prompt(**OWN)),
    "a string": ("Drug", prompt(["Drug"], **OWN)),
    "a list": (["Test", "Drug"], prompt(["Test", "Drug"], **OWN)),
    "a tuple": (("Test", "Drug"), prompt(["Test", "Drug"], **OWN)),
    "a new label": (["Drug", "Gene"], prompt(["Drug", "Gene"], **OWN)),
    "descriptions": ({"Drug": "약", "Test": "검사"}, prompt(["Drug", "Test"], Drug="약", Test="검사")),
    "None for one": ({"Test": None, "Drug": "약"}, prompt(["Test", "Drug"], Drug="약")),
    "an empty description": ({"Test": "", "Drug": "  "}, prompt(["Test", "Drug"])),
    "no description of a described label": ({"Test": "검사", "Drug": ""}, prompt(["Test", "Drug"], Test="검사", **OWN)),
    "options of gliner2": ({"Drug": {"threshold": 0.5}, "Test": {"description": "검사"}},
                           prompt(["Drug", "Test"], **OWN, Test="검사")),
    "another Unicode form": ([unicodedata.normalize("NFD", "질병")], prompt(["질병"])),
}  # fmt: skip


@pytest.mark.parametrize(("asked", "expected"), ASKED.values(), ids=ASKED)
def test_labels_can_be_given_in_every_form(saved, asked, expected):
    extractor = saved(OWN)
    found = extractor.extract_entities(TEXT, asked)
    assert all(each == expected for each in extractor.prompts)
    assert list(found["entities"]) == expected[5:-2:2]


def test_a_label_with_a_threshold_of_its_own_keeps_it(saved):
    extractor = saved(OWN)
    found = extractor.extract_entities(TEXT, {"Drug": {"threshold": 1.0}, "Test": None})["entities"]
    assert found["Drug"] == []
    assert found["Test"]


REFUSED = {
    "given twice": ["Drug", "Test", "Drug"],
    "is empty": ["Drug", ""],
    "white space around": ["Drug", "Test "],
    "must be a string": ["Drug", None],
    "the description of 'Drug' must be a string": {"Drug": 3},
}


@pytest.mark.parametrize(("message", "asked"), REFUSED.items(), ids=REFUSED)
def test_labels_that_are_none_are_refused(saved, message, asked):
    extractor = saved(OWN)
    for extract, texts in ((extractor.extract_entities, TEXT), (extractor.batch_extract_entities, [TEXT])):
        with pytest.raises(DataError, match=message):
            extract(texts, asked)


@pytest.mark.parametrize("threshold", [50, -0.1, 1.01, math.nan])
def test_a_threshold_lies_between_0_and_1(saved, threshold):
    extractor = saved(OWN)
    with pytest.raises(DataError, match="between 0 and 1"):
        extractor.extract_entities(TEXT, threshold=threshold)
    with pytest.raises(DataError, match="between 0 and 1"):
        extractor.batch_extract_entities_long([TEXT], threshold=threshold)
    assert extractor.extract_entities(TEXT, threshold=1)["entities"] == {label: [] for label in LABELS}


def test_a_model_without_labels_must_be_asked_for_some(saved):
    extractor = saved({}, labels=())
    with pytest.raises(LoadError, match="pass entity_types"):
        extractor.extract_entities(TEXT)
    assert list(extractor.extract_entities(TEXT, ["Drug"])["entities"]) == ["Drug"]
