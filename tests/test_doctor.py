"""What the doctor finds in a corpus, before anything is trained."""

from __future__ import annotations

import json
import re

import pytest
from accelerate import Accelerator
from conftest import PYTHON, SAMPLE
from test_scripts import one_line_error, run

from glinerko.corpus.diagnosis import balance, diagnose, find_disagreements, near_duplicates, personal_data
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example
from glinerko.corpus.suggestions import suggest_words
from glinerko.corpus.words import KoreanWordSplitter
from glinerko.model.swap import weight_checksum
from glinerko.training.trial import estimate_run

LABELS = ("Disease", "Drug")


def examples_of(*documents: tuple[str, dict]) -> list[Example]:
    """Documents ``d0``, ``d1`` ... with mentions given as strings."""
    from glinerko.corpus.parsing import parse_row
    from glinerko.corpus.rows import make_row

    rows = (
        make_row(**parse_row({"text": text, "entities": entities}, f"d{number}"), place="")
        for number, (text, entities) in enumerate(documents)
    )
    return [Example.from_row(row) for row in rows]


def words_of(examples: list[Example]) -> list:
    return KoreanWordSplitter().split_batch([example.text for example in examples])


def both(**mentions: list[str]) -> dict:
    return {label: mentions.get(label, []) for label in LABELS}


def test_a_string_that_is_not_labelled_everywhere_is_found():
    examples = examples_of(
        ("당뇨병 환자이다.", both(Disease=["당뇨병"])),
        ("당뇨병으로 인슐린을 투여함.", both(Disease=["당뇨병"], Drug=["인슐린"])),
        ("과거력에 당뇨병이 있다.", both()),
        ("제2형 당뇨병 환자이다.", both(Disease=["제2형 당뇨병"])),  # inside of a mention: says nothing
        ("인슐린을 중단함.", both(Disease=["인슐린"])),  # another label
        ("당뇨병이 있다.", {"Drug": []}),  # nobody looked for diseases
    )
    found = {use.string: use for use in find_disagreements(examples, words_of(examples), 12)}
    assert found.keys() == {"당뇨병", "인슐린"}
    assert found["당뇨병"].labelled == {"Disease": ["d0", "d1"]}
    assert found["당뇨병"].unlabelled == ["d2"]
    assert found["당뇨병"].doubtful == 1
    assert found["인슐린"].labelled == {"Drug": ["d1"], "Disease": ["d4"]}


def test_a_common_word_that_is_seldom_a_mention_comes_last():
    seldom = [("이 환자이다.", both(Disease=["이"])) for _ in range(3)] + [("이 병원이다.", both()) for _ in range(20)]
    often = [("당뇨병이다.", both(Disease=["당뇨병"])) for _ in range(4)] + [("당뇨병 없음", both()) for _ in range(2)]
    examples = examples_of(*seldom, *often)
    assert [use.string for use in find_disagreements(examples, words_of(examples), 12)] == ["당뇨병", "이"]


def test_a_string_inside_of_a_word_is_no_occurrence():
    examples = examples_of(("위암 환자이다.", both(Disease=["암"])), ("암시적으로 말하였다.", both()))
    assert not find_disagreements(examples, words_of(examples), 12)


def test_near_duplicates_are_found_whatever_their_white_space():
    text = "환자는 당뇨병으로 내원하여 인슐린을 투여받았고 혈당이 안정되어 퇴원하였다. 외래에서 경과를 관찰하기로 함."
    text += " 흉부 X선과 심전도에서 이상이 없었으며 신장 기능은 정상이었다. 다음 방문은 석 달 뒤이다."
    texts = {
        "training/a": text,
        "test/b": text.replace(" ", "  ").replace("인슐린을", "인슐린 을"),
        "training/c": text.replace("퇴원하였다", "퇴원함"),
        "training/d": "고혈압으로 내원하여 암로디핀을 처방받았다.",
        "training/e": "",
        "training/f": " ",
    }
    assert [sorted(group) for group in near_duplicates(texts)] == [["test/b", "training/a", "training/c"]]
    assert near_duplicates({}) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("resident registration number", "주민번호 900101-1234567 확인"),
        ("resident registration number", "9001011234567"),
        ("phone number", "연락처 010-1234-5678"),
        ("phone number", "02) 123-4567"),
        ("phone number", "01012345678"),
        ("phone number", "+821012345678"),
        ("phone number", "0507-1234-5678"),
        ("resident registration number", "900101 - 1234567"),
        ("e-mail address", "문의: a.b@example.co.kr로"),
        ("card number", "1234-5678-9012-3456"),
        (None, "2023-10-11 혈당 123-4567, 제2023-226호, 12345678901234, 991332-1234567"),
    ],
)
def test_personal_data_is_recognised_by_kind(kind, text):
    assert personal_data({"d": text}) == ({kind: ["d"]} if kind else {})


def test_the_balance_counts_documents_mentions_and_strings():
    examples = examples_of(
        ("당뇨병과 고혈압", both(Disease=["당뇨병", "고혈압"])), ("당뇨병", both(Disease=["당뇨병"]))
    )
    (disease,) = balance(examples).values()
    assert (disease.documents, disease.mentions, disease.strings, disease.median_length) == (2, 3, 2, 3)


def test_the_share_of_test_mentions_that_training_has(write_rows):
    rows = [{"text": f"{name} 환자", "entities": both(Disease=[name])} for name in ("당뇨병", "고혈압")]
    splits = {
        "training": load_rows(write_rows(rows[0], name="a.jsonl"))[0],
        "test": load_rows(write_rows(*rows, name="b.jsonl"))[0],
    }
    words = {split: KoreanWordSplitter().split_batch(part["text"][:]) for split, part in splits.items()}
    diagnosis = diagnose(splits, words, 12)
    assert diagnosis.seen == {"test": 0.5}
    assert diagnosis.without_a_mention == {"training": 0, "test": 0}


def test_documents_with_one_id_are_all_looked_at(write_rows):
    text = "환자는 당뇨병으로 내원하여 인슐린을 투여받았고 혈당이 안정되어 퇴원하였다."
    rows = [{"id": "a", "text": text, "entities": both(Disease=["당뇨병"])} for _ in range(2)]
    rows.append({"id": "a", "text": "연락처 010-1234-5678", "entities": both()})
    splits = {"training": load_rows(write_rows(*rows))[0]}
    words = {"training": KoreanWordSplitter().split_batch(splits["training"]["text"][:])}
    diagnosis = diagnose(splits, words, 12)
    assert diagnosis.repeated_ids == {"training": 2}
    assert diagnosis.near_duplicates == [["training/a", "training/a (row 2)"]]
    assert diagnosis.personal_data == {"phone number": ["training/a (row 3)"]}


class WhiteSpaceWords(KoreanWordSplitter):
    """Words at white space, and the words of the dictionary at the beginning of one."""

    def split_batch(self, texts):
        return [[piece for word in re.finditer(r"\S+", text) for piece in self.cut(word)] for text in texts]

    def cut(self, word):
        start, end = word.span()
        for form, _, _ in self.user_dictionary:
            if word[0].startswith(form) and word[0] != form:
                return [(start, start + len(form)), (start + len(form), end)]
        return [(start, end)]


@pytest.mark.parametrize(("places", "gained"), [([0, 1, 2], 3), ([0, 5], 0), ([0], 0)])
def test_a_word_is_tried_on_documents_that_did_not_suggest_it(monkeypatch, places, gained):
    """Documents 0 and 5 are in one fold: what they suggest is tried on no other document that has it."""
    from glinerko.corpus import suggestions

    class Trial(WhiteSpaceWords):
        def __init__(self, splitter, forms):
            self.lower_case, self.user_dictionary = False, tuple((form, "NNP", 0.0) for form in forms)

    monkeypatch.setattr(suggestions, "_TrialSplitter", Trial)
    documents = [("구순염 환자" if n in places else "고혈압", {"Disease": ["구순"]}) for n in range(7)]
    examples, splitter = examples_of(*documents), WhiteSpaceWords()
    words = splitter.split_batch([example.text for example in examples])
    found = {each.form: each for each in suggest_words(examples, words, splitter, 12)}
    assert found.keys() == ({"구순"} if gained else set())
    assert not gained or (found["구순"].gained, found["구순"].lost) == (gained, 0)


def test_a_word_that_loses_as_much_as_it_gains_is_not_suggested(monkeypatch):
    """`구순` as a word cuts `구순염` off, and what begins with it is then too wide."""
    from glinerko.corpus import suggestions

    class Trial(WhiteSpaceWords):
        def __init__(self, splitter, forms):
            self.lower_case, self.user_dictionary = False, tuple((form, "NNP", 0.0) for form in forms)

    monkeypatch.setattr(suggestions, "_TrialSplitter", Trial)
    documents = [("구순염", {"Disease": ["구순", "구순염"]}) for _ in range(6)]
    examples, splitter = examples_of(*documents), WhiteSpaceWords()
    words = splitter.split_batch([example.text for example in examples])
    assert not suggest_words(examples, words, splitter, max_width=1)
    assert suggest_words(examples, words, splitter, max_width=2)


def test_the_estimate_trains_a_copy(model, sample_rows, schema):
    from glinerko.corpus.windows import training_windows

    before = weight_checksum(model)
    windows = training_windows(model.align(sample_rows.select(range(12))), schema)
    estimate = estimate_run(model, windows, schema, Accelerator(cpu=True), 4)
    assert weight_checksum(model) == before
    assert estimate.windows == len(windows)
    assert estimate.minutes_per_epoch == pytest.approx(len(windows) / estimate.windows_per_second / 60)
    assert 0 < estimate.memory_gb < 64


@pytest.fixture
def corpus(tmp_path, write_rows):
    """The sample corpus with personal data, a copy, and a string that is not labelled once."""
    secret = "연락처 010-9876-5432"
    lines = (SAMPLE / "train.jsonl").read_text().splitlines()
    first = json.loads(lines[0])
    copy = {**first, "id": "copy", "entities": {label: [] for label in first["entities"]}}
    private = {**first, "id": "private", "text": f"{first['text']} {secret}"}
    return write_rows(*lines, copy, private), secret


@pytest.mark.slow(25)
def test_the_doctor_tells_everything_in_tables_json_and_a_page(corpus, pair, tmp_path):
    file, secret = corpus
    flags = ["--train_file", file, "--test_file", SAMPLE / "test.jsonl", "--output_dir", tmp_path / "doctor"]
    base, encoder = pair
    result = run(PYTHON, "scripts/doctor.py", *flags, "--base_model", base, "--korean_encoder", encoder)
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "doctor" / "doctor.json").read_text())
    page = (tmp_path / "doctor" / "index.html").read_text()
    first = json.loads((SAMPLE / "train.jsonl").open().readline())["id"]
    assert any({f"training/{first}", "training/copy"} <= {*group} for group in figures["near_duplicates"])
    assert figures["personal_data"] == {"phone number": ["training/private"]}
    assert figures["disagreements"]
    assert figures["data"]["training"]["documents"] == figures["documents"]["training"]
    assert figures["estimate"]["windows_per_second"] > 0
    for shown in (result.stdout, page):
        assert "phone number" in shown
        assert "minutes an epoch" in shown
    for written in (result.stdout, result.stderr, page, json.dumps(figures, ensure_ascii=False)):
        assert secret.split()[1] not in written
    assert "http" not in page


def test_without_a_model_the_rest_is_still_told(tmp_path):
    flags = ["--train_file", SAMPLE / "train.jsonl", "--output_dir", tmp_path]
    result = run(PYTHON, "scripts/doctor.py", *flags, "--base_model", tmp_path / "none")
    assert result.returncode == 0, result.stderr
    assert "Without a model" in result.stdout
    assert "Labels in training" in result.stdout
    assert "estimate" not in json.loads((tmp_path / "doctor.json").read_text())


@pytest.mark.slow(8)
def test_where_the_model_does_not_fit_the_documents_the_rest_is_still_told(pair, tmp_path):
    flags = ["--train_file", SAMPLE / "train.jsonl", "--output_dir", tmp_path, "--max_length", 64]
    result = run(PYTHON, "scripts/doctor.py", *flags, "--base_model", pair[0], "--korean_encoder", pair[1])
    assert result.returncode == 0, result.stderr
    assert "Without a model" in result.stdout
    assert "Labels in training" in result.stdout
    assert (tmp_path / "index.html").is_file()


def test_an_input_of_the_doctor_is_never_written_over(tmp_path):
    """The words that an earlier run suggested may be the user dictionary of this one."""
    words = tmp_path / "user_dictionary.tsv"
    words.write_text("구순\tNNP\t0.0\n")
    flags = ["--train_file", SAMPLE / "train.jsonl", "--output_dir", tmp_path, "--user_dictionary", words]
    one_line_error(run(PYTHON, "scripts/doctor.py", *flags), "user_dictionary.tsv: would be written over")
    assert words.read_text() == "구순\tNNP\t0.0\n"


def test_the_doctor_refuses_labels_that_no_training_row_names(tmp_path):
    flags = ["--train_file", SAMPLE / "train.jsonl", "--output_dir", tmp_path, "--labels", "Diseases"]
    one_line_error(run(PYTHON, "scripts/doctor.py", *flags), "no row names the label Diseases (Disease is close)")


def test_the_doctor_needs_documents(tmp_path):
    one_line_error(run(PYTHON, "scripts/doctor.py", "--output_dir", tmp_path), "--train_file")
    (tmp_path / "bad.jsonl").write_text("{\n")
    one_line_error(run(PYTHON, "scripts/doctor.py", "--train_file", tmp_path / "bad.jsonl"), "line 1")
