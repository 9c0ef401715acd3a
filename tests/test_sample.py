from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT, SAMPLE

from glinerko.corpus.reading import label_schema, load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.splits import shared_texts


@pytest.fixture(scope="module")
def splits():
    return {split: load_rows(str(SAMPLE / f"{split}.jsonl"))[0] for split in ("train", "validation", "test")}


def test_sample_is_what_its_script_makes(tmp_path):
    subprocess.run(
        [sys.executable, SAMPLE / "make_sample.py", "--output_dir", tmp_path],
        check=True,
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    for split in ("train", "validation", "test"):
        assert (tmp_path / f"{split}.jsonl").read_bytes() == (SAMPLE / f"{split}.jsonl").read_bytes()


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
