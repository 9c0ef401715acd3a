from __future__ import annotations

import json
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLE

from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.splits import shared_texts


@pytest.fixture(scope="session")
def splits():
    return {split: load_rows(str(SAMPLE / f"{split}.jsonl"))[0] for split in ("train", "validation", "test")}


@pytest.fixture(scope="session")
def documents():
    """The rows of the corpus with all four tasks, as they are written."""
    return {
        split: [json.loads(line) for line in (SAMPLE / "tasks" / f"{split}.jsonl").read_text("utf-8").splitlines()]
        for split in ("train", "validation", "test")
    }


def share(rows, key):
    return sum(bool(row[key]) for row in rows) / len(rows)


def test_sample_is_what_its_script_makes(tmp_path):
    subprocess.run(
        [sys.executable, SAMPLE / "make_sample.py", "--output_dir", tmp_path],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    files = sorted(path.relative_to(SAMPLE) for path in SAMPLE.rglob("*.jsonl"))
    assert len(files) == 6
    for file in files:
        assert (tmp_path / file).read_bytes() == (SAMPLE / file).read_bytes()


def test_sizes_and_labels(splits):
    assert [len(rows) for rows in splits.values()] == [600, 100, 100]
    assert all(label_schema(rows).labels == ("Disease", "Drug", "Procedure", "Biomarker") for rows in splits.values())
    assert any(not row["mentions"] for row in splits["train"])


def test_a_third_of_the_test_mentions_never_occur_in_training(splits):
    seen = {pair for row in splits["train"] for pair in Example.from_row(row).gold_strings}
    mentions = [(m.text, m.label) for row in splits["test"] for m in Example.from_row(row).mentions]
    assert sum(mention not in seen for mention in mentions) / len(mentions) >= 1 / 3


def test_no_text_is_in_two_splits(splits):
    assert not shared_texts(splits["train"], splits["test"])
    assert not shared_texts(splits["train"], splits["validation"])
    assert not shared_texts(splits["validation"], splits["test"])


def test_every_document_has_the_same_schema(documents):
    assert [len(rows) for rows in documents.values()] == [600, 100, 150]
    for row in (row for rows in documents.values() for row in rows):
        outcome, contents = row["classifications"]
        assert (outcome["task"], outcome["labels"]) == ("경과", ["호전", "악화", "언급 없음"])
        assert (contents["task"], contents["labels"]) == ("내용", ["진단", "투약", "시술", "검사 수치"])
        assert contents["multi_label"]
        assert outcome["true_label"][0] in outcome["labels"]
        labels = ["Disease", "Drug", "Procedure", "Biomarker"]
        assert list(row["entity_descriptions"]) == labels
        assert contents["true_label"] == [contents["labels"][n] for n, x in enumerate(labels) if x in row["entities"]]
        assert list(row["relation_descriptions"]) == ["치료"]
        assert list(row["json_descriptions"]["처방"]) == ["약물", "용량", "경로"]


def test_documents_state_the_values_of_their_relations_and_prescriptions(documents):
    routes = runpy.run_path(str(SAMPLE / "make_sample.py"))["ROUTES"]
    for row in (row for rows in documents.values() for row in rows):
        pairs = [relation["치료"] for relation in row["relations"]]
        prescriptions = [structure["처방"] for structure in row["json_structures"]]
        entities = [mention for mentions in row["entities"].values() for mention in mentions]
        fields = [field for group in pairs + prescriptions for field in group.values() if "start" in field]
        assert all(row["text"][field["start"] : field["end"]] == field["text"] for field in entities + fields)

        assert all(pair["head"] in row["entities"]["Drug"] for pair in pairs)
        assert all(pair["tail"] in row["entities"]["Disease"] for pair in pairs)
        starts = [min(pair["head"]["start"], pair["tail"]["start"]) for pair in pairs]
        assert starts == sorted(starts)

        starts = [prescription["약물"]["start"] for prescription in prescriptions]
        assert starts == sorted(starts)
        for prescription, end in zip(prescriptions, [*starts, len(row["text"])][1:], strict=True):
            assert prescription["약물"] in row["entities"]["Drug"]
            stated = row["text"][prescription["약물"]["end"] : end]
            if "용량" in prescription:
                assert prescription["용량"]["text"] in stated
            if "경로" in prescription:
                route = prescription["경로"]
                assert route["value"] in route["choices"]
                assert any(form in stated for form, value in routes.items() if value == route["value"])


def test_about_half_of_the_documents_have_no_relation_or_no_prescription(documents):
    for rows in documents.values():
        assert 0.48 < share(rows, "relations") < 0.62
        assert 0.43 < share(rows, "json_structures") < 0.57
        assert 0.84 < share(rows, "entities") < 0.92
        prescribed = [row for row in rows if row["json_structures"]]
        assert 0.15 < sum(len(row["json_structures"]) == 2 for row in prescribed) / len(prescribed) < 0.3
        # What makes the tasks more than a matter of which entities are there.
        assert any({"Drug", "Disease"} <= row["entities"].keys() and not row["relations"] for row in rows)
        assert any("Drug" in row["entities"] and not row["json_structures"] for row in rows)
        assert {row["classifications"][0]["true_label"][0] for row in rows} == {"호전", "악화", "언급 없음"}


def test_documents_keep_names_and_texts_of_the_splits_apart(documents):
    mentions = {
        split: [
            (label, mention["text"]) for row in rows for label, group in row["entities"].items() for mention in group
        ]
        for split, rows in documents.items()
    }
    lexicon = runpy.run_path(str(SAMPLE / "make_sample.py"))["split_names"](42)
    for split in ("validation", "test"):
        own = {(label, name) for label, names in lexicon[split].items() for name in names}
        assert not own.intersection(mentions["train"])
        assert sum(mention in own for mention in mentions[split]) / len(mentions[split]) > 0.3
    texts = [{row["text"] for row in rows} for rows in documents.values()]
    assert len(set.union(*texts)) == sum(map(len, texts))  # no text is in two of the sets
