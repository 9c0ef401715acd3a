"""Whoever asks, a text goes the same way: the same windows, the same spans, the same scores."""

from __future__ import annotations

import copy
import fcntl
import itertools
import json
import pickle
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from conftest import PYTHON, ROOT, SAMPLE, SHARED, swap_and_spread
from gliner2 import AutoExtractor
from gliner2.inference.schema import RegexValidator
from test_scripts import one_line_error, run
from test_swap import edit_json

from glinerko import KoreanExtractor, KoreanWordSplitter, load_extractor
from glinerko.common import DataError, LoadError
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Span
from glinerko.hub import read_config
from glinerko.model import prediction
from glinerko.model.attention import read_faster
from glinerko.model.prediction import in_batches, predict_spans

LABELS = ["Disease", "Drug", "Procedure", "Biomarker"]
THRESHOLD = 0.9


@pytest.fixture(scope="session", params=["span", "boundary"])
def saved(request, bases, pair, schema, tmp_path_factory):
    """A model whose scores spread over (0, 1), with labels, descriptions, a threshold and short windows."""
    directory = tmp_path_factory.mktemp("saved")
    model = swap_and_spread(bases, pair, request.param, schema)
    model.configure(threshold=THRESHOLD, window={"max_length": 256, "window_overlap": 32})
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def extractor(saved):
    return load_extractor(saved)


@pytest.fixture(scope="session")
def texts():
    """Documents of one window and of many, up to 5,000 characters, with real ones where there are some."""
    short = load_rows(str(SAMPLE / "train.jsonl"))[0]["text"][:40]
    long = "\n".join(short)
    real = SHARED / "gliner2_train_v2" / "train.jsonl"
    real = [json.loads(line)["text"] for line in real.open().readlines()[::100]] if real.exists() else []
    return [*short[:24], long[:2000], (long * 3)[:5000], *real]


def spans_of(found: dict) -> list[Span]:
    """The spans of an answer in gliner2's form."""
    return sorted(
        Span(mention["start"], mention["end"], label, mention["confidence"])
        for label, mentions in found["entities"].items()
        for mention in mentions
    )


def assert_same(ours: list[list[Span]], theirs: list[list[Span]], tolerance: float = 1e-5) -> None:
    assert [[span.key for span in spans] for spans in ours] == [[span.key for span in spans] for spans in theirs]
    for mine, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert mine.score == pytest.approx(other.score, abs=tolerance)


def ways_to_extract(extractor: KoreanExtractor) -> dict:
    """Every method that extracts entities, as a function from texts to answers."""
    shown = {"include_spans": True, "include_confidence": True}
    schema = extractor.create_schema().entities(LABELS)
    return {
        "extract_entities": lambda texts: [extractor.extract_entities(text, **shown) for text in texts],
        "extract_entities_long": lambda texts: [extractor.extract_entities_long(text, **shown) for text in texts],
        "batch_extract_entities": lambda texts: extractor.batch_extract_entities(texts, batch_size=3, **shown),
        "batch_extract_entities_long": lambda texts: extractor.batch_extract_entities_long(texts, **shown),
        "extract": lambda texts: [extractor.extract(text, **shown) for text in texts],
        "extract_long": lambda texts: [extractor.extract_long(text, schema, **shown) for text in texts],
        "batch_extract": lambda texts: extractor.batch_extract(texts, schema, **shown),
        "batch_extract_long": lambda texts: extractor.batch_extract_long(texts, [schema] * len(texts), **shown),
        "a dictionary": lambda texts: extractor.batch_extract(texts, {"entities": LABELS}, **shown),
    }


@pytest.mark.slow(25)
def test_all_ways_give_the_same_spans_with_the_same_scores(extractor, saved, texts, tmp_path):
    expected = list(extractor.stream_entities(texts))
    assert sum(map(len, expected)) > 20
    for name, extract in ways_to_extract(extractor).items():
        found = [spans_of(answer) for answer in extract(texts)]
        assert_same(found, expected), name

    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": text, "entities": {}}) + "\n" for text in texts))
    rows, _ = load_rows(str(file))
    evaluated = predict_spans(extractor, extractor.split(rows), extractor.label_schema, floor=0.05)
    assert_same(evaluated.at_threshold(THRESHOLD), expected)

    result = run(PYTHON, "scripts/predict.py", "--model", saved, "--input_file", file)
    assert result.returncode == 0, result.stderr
    written = [json.loads(line)["entities"] for line in result.stdout.splitlines()]
    found = [sorted(Span(e["start"], e["end"], e["label"], e["score"]) for e in entities) for entities in written]
    assert_same(found, expected, tolerance=1.5e-4)  # 0.5e-4 of it because scores are written with four digits


def test_an_empty_text_has_no_entities(extractor):
    empty = {"entities": {label: [] for label in LABELS}}
    assert extractor.batch_extract_entities(["", " \n"]) == [empty, empty]
    assert next(extractor.stream_entities(["", "당뇨병"])) == []


def test_windows_wait_in_bounded_memory_and_documents_come_in_order(monkeypatch):
    """A document of any length, and any number of documents: they are read only as far as there is room."""
    monkeypatch.setattr(prediction, "POOL", 4)
    read, batches = [], []

    def items(document: int):
        for item in range(1000 if document == 1 else 3):
            read.append((document, item))
            yield (document, item), SimpleNamespace(words=range(item % 7))

    def run_batch(batch):
        batches.append(len(batch))
        assert len(read) - sum(batches[:-1]) <= 4 * 5 + 1
        return [-item for (_, item), _ in batch]

    documents = in_batches(map(items, itertools.count()), run_batch, 5)
    for document, results in enumerate(itertools.islice(documents, 40)):
        assert results == [((document, item), -item) for item in range(1000 if document == 1 else 3)]
        assert len(read) <= 1000 + 3 * 41 + 4 * 5
    assert set(batches[:-1]) == {5}


@pytest.fixture
def plain(saved):
    """The same files in gliner2 itself."""
    return AutoExtractor.from_pretrained(str(saved), word_splitter=KoreanWordSplitter())


TEXT = "당뇨병으로 내원하여 MRI 촬영 후 메트포르민 500mg을 투여하였다."


@pytest.mark.parametrize("policy", [None, "flat", "allow"])
@pytest.mark.parametrize("confidence", [True, False])
@pytest.mark.parametrize("spans", [True, False])
def test_all_tasks_of_a_schema_are_answered_as_by_gliner2(extractor, plain, schema, texts, spans, confidence, policy):
    """On texts of one window: gliner2 itself reads no windows."""

    def asked(model):
        entities = {label: {"description": text} for label, text in schema.descriptions.items()}
        entities["Drug"] |= {"dtype": "str", "threshold": 0.8}
        # For a boundary model, gliner2 lets spans that are not valid, or that begin before the text, displace others.
        span = model.architecture == "span"
        if span:
            entities["Disease"]["validators"] = [RegexValidator("..+", mode="full")]
        built = model.create_schema().entities(entities)
        built.classification("상태", ["호전", "악화"]).classification("종류", ["가", "나", "다"], multi_label=True)
        choices = ["경구", "정맥"] if span else None
        built.structure("처방").field("약물", dtype="str").field("경로", dtype="str", choices=choices).field("용량")
        return built.relations(["치료", "유발"])

    extractor.configure(window={"max_length": 512})
    options = {"include_spans": spans, "include_confidence": confidence, "threshold": 0.3}
    options["batch_size"] = 1  # the relations of a boundary model depend on the padding
    options |= {"overlap_policy": policy} if policy else {}
    few = [text for text in texts[:12] if text.endswith(".")]  # gliner2 adds no full stop, which it could find
    ours = extractor.batch_extract(few, asked(extractor), **options)
    theirs = plain.batch_extract(few, asked(plain), **options)
    assert any(answer.get("처방") for answer in theirs)
    assert any(pairs for answer in theirs for pairs in answer["relation_extraction"].values())
    for mine, other in zip(ours, theirs, strict=True):
        # gliner2 names the best of several classes also where none of them reaches the threshold.
        other["종류"] = [each for each in other["종류"] if not confidence or each["confidence"] >= 0.5]
        if not mine["종류"] and not confidence:
            assert len(other.pop("종류")) == 1
            mine.pop("종류")
        for task in (*mine, *other):
            assert_alike(mine[task], other[task])


def assert_alike(mine, other):
    """Two answers are the same, but for the order of lists and for what rounding makes of scores."""
    if isinstance(mine, float):
        assert mine == pytest.approx(other, abs=1e-4)
    elif isinstance(mine, dict):
        assert mine.keys() == other.keys()
        for key in mine:
            assert_alike(mine[key], other[key])
    elif isinstance(mine, list):
        assert len(mine) == len(other)
        for pair in zip(sorted(mine, key=without_scores), sorted(other, key=without_scores), strict=True):
            assert_alike(*pair)
    else:
        assert mine == other


def without_scores(value):
    """What is sorted by: first all but scores, in which the last digits may differ."""
    return re.sub(r"\d\.\d+(e-\d+)?", "", repr(value)), repr(value)


def rounded(value):
    """``value`` with scores of few digits."""
    if isinstance(value, float):
        return float(f"{value:.3g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return type(value)(map(rounded, value)) if isinstance(value, list | tuple) else value


def test_other_tasks_read_a_long_text_in_windows(extractor, texts):
    schema = {"classifications": [{"task": "상태", "labels": ["호전", "악화"]}], "relations": ["치료"]}
    long = texts[24]
    answer = extractor.extract(long, schema, include_spans=True, threshold=THRESHOLD)
    assert answer["상태"] in ("호전", "악화")
    pairs = answer["relation_extraction"]["치료"]
    assert all(long[pair[end]["start"] : pair[end]["end"]] == pair[end]["text"] for pair in pairs for end in pair)
    assert set(extractor.classify_text(long, {"상태": ["호전", "악화"]})) == {"상태"}
    assert extractor.extract_json_long(long, {"처방": ["약물::str", "용량"]}).keys() == {"처방"}
    assert extractor.extract(long, extractor.create_schema().structure("처방").field("약물")).keys() == {"처방"}


def test_a_relation_with_a_description_is_found_under_its_name(extractor, texts):
    schema = extractor.create_schema().relations({"치료": "약이 병을 낫게 한다: 언제나"})
    answers = extractor.batch_extract(texts[:6], schema, threshold=0.1)
    assert all(answer.keys() == {"relation_extraction"} for answer in answers)
    assert any(answer["relation_extraction"]["치료"] for answer in answers)


def test_the_thresholds_of_the_model_are_for_entities_only(extractor):
    """Those of other tasks are gliner2's, as long as nobody trained them here."""
    schema = extractor.create_schema().entities({"Drug": {"threshold": 0.5}, "Disease": {}}).relations(["치료"])
    prompt, _ = extractor._prompt(schema, None)
    thresholds = {label: options["threshold"] for label, options in prompt.metadata["entity_metadata"].items()}
    assert (thresholds, prompt.threshold) == ({"Drug": 0.5, "Disease": THRESHOLD}, 0.5)
    prompt, _ = extractor._prompt(schema, 0.7)
    assert prompt.metadata["entity_metadata"]["Disease"]["threshold"] == prompt.threshold == 0.7


def test_descriptions_of_a_dictionary_are_asked(extractor):
    own = extractor.label_schema.descriptions
    asked = {"entities": {"Drug": "약", "Disease": ""}}
    for schema in (asked, {**asked, "entity_descriptions": {}}):
        prompt, _ = extractor._prompt(schema, None)
        assert prompt.schema["entity_descriptions"] == {"Drug": "약", "Disease": own["Disease"]}


@pytest.mark.parametrize("policy", ["flat", "disallow", "nested", "longest", "allow", "keep-longest"])
def test_overlaps_are_resolved_once_for_a_document(extractor, texts, policy):
    allowed = list(extractor.stream_entities(texts[12:24], overlap_policy="allow"))
    resolve = prediction.overlap_resolver(policy)
    assert list(extractor.stream_entities(texts[12:24], overlap_policy=policy)) == [*map(resolve, allowed)]


REFUSED = {
    "expected a list of texts, found str": lambda model: model.batch_extract(TEXT),
    "expected a list of texts, found NoneType": lambda model: model.batch_extract(None),
    "expected a list of texts, found bytes": lambda model: next(model.stream_entities(TEXT.encode())),
    "labels must be a list, found int": lambda model: model.extract_entities(TEXT, 1),
    "threshold 'a': it must be a number between 0 and 1": lambda model: model.extract(TEXT, threshold="a"),
    "batch_size '8': it must be a whole number": lambda model: model.batch_extract([TEXT], batch_size="8"),
    "max_len 1.5": lambda model: model.extract(TEXT, max_len=1.5),
    "unknown overlap_policy \\[\\]": lambda model: model.extract(TEXT, overlap_policy=[]),
    "cannot be used: .*Threshold must be": lambda model: model.extract_entities(TEXT, {"A": {"threshold": 7}}),
    "has no key 'foo'": lambda model: model.extract(TEXT, {"entities": ["A"], "foo": 1}),
    "asks for nothing": lambda model: model.extract(TEXT, {}),
    "a classification has no labels": lambda model: model.classify_text(TEXT, {"a": []}),
    "schema cannot be used: .*items": lambda model: model.classify_text(TEXT, None),
    "schema cannot be used: .*int": lambda model: model.extract_json(TEXT, {"a": 1}),
    "max_length 'a'": lambda model: model.configure(window={"max_length": "a"}),
    "window has no 'foo'": lambda model: model.configure(window={"foo": 1}),
    "text 2: expected a string, found int": lambda model: model.batch_extract([TEXT, 5]),
    "text 1: the text holds half of a surrogate": lambda model: model.extract("\ud800"),
    "1 schemas for 2 texts": lambda model: model.batch_extract([TEXT, TEXT], [{"entities": ["Drug"]}]),
    "it must be gliner2's Schema or a dictionary, found int": lambda model: model.extract(TEXT, 5),
    "format_results=False": lambda model: model.extract(TEXT, format_results=False),
    "hidden_states": lambda model: model.batch_extract([TEXT], hidden_states=[torch.zeros(3, 4)]),
    "windows of training": lambda model: model.extract_entities_long(TEXT, chunk_size=100),
    "batch_size 0: it must be a whole number of at least 1": lambda model: model.batch_extract([TEXT], batch_size=0),
    "unknown overlap_policy 'best'": lambda model: model.extract(TEXT, overlap_policy="best"),
    "schema cannot be used": lambda model: model.extract(TEXT, {"classifications": [{"task": "상태"}]}),
    "entities: .*must be unique": lambda model: model.extract(TEXT, {"entities": ["Drug", "Drug"]}),
    "is empty": lambda model: model.extract(TEXT, model.create_schema().entities([""])),
    "leaves -?[0-9]+ for text": lambda model: model.extract_entities(TEXT, {"Drug": "긴 설명 " * 100}),
}


@pytest.mark.parametrize(("message", "call"), REFUSED.items(), ids=REFUSED)
def test_what_cannot_be_read_is_refused_in_a_line(extractor, message, call):
    with pytest.raises(DataError, match=message) as caught:
        call(extractor)
    assert "\n" not in str(caught.value)


def test_at_most_so_many_words_are_read(extractor, texts):
    (words,) = extractor.processor.split([texts[24]])
    options = {"threshold": 0.3, "include_spans": True, "include_confidence": True}
    found = spans_of(extractor.extract(texts[24], max_len=20, **options))
    assert 0 < max(span.end for span in found) <= words[19][1]


def answers(extractor) -> list:
    options = {"threshold": 0.3, "include_spans": True, "include_confidence": True}
    return rounded(extractor.batch_extract_entities([TEXT], **options))


def test_a_model_is_loaded_by_its_class_with_the_options_of_gliner2(saved, extractor):
    expected = answers(extractor)
    assert answers(KoreanExtractor.from_pretrained(str(saved), map_location="cpu")) == expected
    assert answers(load_extractor(saved, attention_backend="standard")) == expected
    half = load_extractor(saved, quantize=True)
    assert half.dtype == torch.float16
    assert answers(half)[0].keys() == expected[0].keys()
    with pytest.raises(TypeError, match="load_extractor does not accept"):
        load_extractor(saved, device="cpu")
    for options in ({"attention_backend": "fastest"}, {"disentangled_flash_packed": True}):
        with pytest.raises(LoadError, match="attention_backend"):
            load_extractor(saved, **options)


def test_fast_attention_reads_the_same(saved, extractor, texts):
    pytest.importorskip("disentangled_flash")
    fast = load_extractor(saved)
    read_faster(fast)
    assert fast._disentangled_flash_mode == "inference"
    assert_same(list(fast.stream_entities(texts[:25])), list(extractor.stream_entities(texts[:25])))


def test_a_quantized_model_is_saved_and_restored(extractor, tmp_path):
    expected = answers(extractor.quantize())
    extractor.save_pretrained(tmp_path)
    assert load_extractor(tmp_path).dtype == torch.float32
    assert answers(load_extractor(tmp_path, quantize=True)) == expected


@pytest.mark.slow(15)
def test_a_compiled_model_is_saved_and_restored(extractor, tmp_path, monkeypatch):
    expected = answers(extractor)
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    extractor.compile()
    assert answers(extractor) == expected
    extractor.save_pretrained(tmp_path)
    assert answers(load_extractor(tmp_path)) == expected


def test_copies_and_worker_processes_have_weights_of_their_own(extractor):
    expected = answers(extractor)
    for other in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        assert answers(other) == expected
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        assert answers(extractor) == expected
        assert answers(other) != expected


def test_a_copy_that_would_share_weights_is_refused(extractor):
    pytest.importorskip("disentangled_flash")
    read_faster(extractor)
    for copied in (copy.deepcopy, pickle.dumps):
        with pytest.raises(LoadError, match="before fast attention"):
            copied(extractor)


@pytest.mark.parametrize("splitter", ["char", "whitespace", "kiwi", KoreanWordSplitter(lower_case=True)])
def test_other_words_are_saved_with_the_model(extractor, tmp_path, splitter):

    def state(model) -> tuple:
        return answers(model), model.reference_scores()

    before = state(extractor)
    expected = state(extractor.set_word_splitter(splitter))
    assert expected != before
    extractor.save_pretrained(tmp_path)
    assert state(load_extractor(tmp_path)) == expected
    assert state(load_extractor(tmp_path, word_splitter="korean")) == before


def test_words_of_a_function_must_be_registered_to_be_saved(extractor, tmp_path):
    def letters(text, lower=True):
        return ((character, index, index + 1) for index, character in enumerate(text) if not character.isspace())

    extractor.set_word_splitter(letters)
    assert answers(extractor)
    with pytest.raises(LoadError, match="register_word_splitter"):
        extractor.save_pretrained(tmp_path / "model")
    with pytest.raises(LoadError, match="unknown word splitter"):
        extractor.set_word_splitter("none of these")


@pytest.mark.slow(12)
def test_standard_input_is_answered_as_it_comes(saved):
    """The answer to a line is there before the next line, and before the input ends."""
    command = [sys.executable, "scripts/predict.py", "--model", str(saved)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for text in (TEXT, "인슐린을 투여함"):
            process.stdin.write(text + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["text"] == text
        process.stdin.write('{"text"')
        process.stdin.close()
        assert json.loads(process.stdout.readline())["text"] == '{"text"'
    assert process.returncode == 0


@pytest.mark.slow(20)
def test_a_run_that_was_stopped_goes_on(saved, tmp_path, texts):
    notes, result, whole = (tmp_path / f"{name}.jsonl" for name in ("notes", "result", "whole"))
    notes.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts[:6]))
    command = [PYTHON, "scripts/predict.py", "--model", saved, "--input_file", notes, "--output_file"]
    assert run(*command, whole).returncode == 0

    options = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    stopped = subprocess.Popen([*map(str, [*command[:4], "--output_file", result])], **options)
    lines = notes.read_text().splitlines()
    stopped.stdin.write("\n".join(lines[:3]) + "\n{\n")  # the fourth line stops it
    stopped.stdin.close()
    assert "line 4: malformed JSON" in stopped.stderr.read()
    assert stopped.wait() == 2
    partial_file = tmp_path / "result.jsonl.partial"
    done = partial_file.read_text()
    assert done == "".join(whole.read_text().splitlines(keepends=True)[:3])
    assert not result.exists()

    partial_file.write_text(done[:-7])  # as if it had been killed in the middle of a line
    one_line_error(run(*command, result, "--threshold", "0.3"), "made with another model or other options")
    other = shutil.copytree(saved, tmp_path / "model")
    edit_json(other / "config.json", glinerko={**read_config(other)["glinerko"], "threshold": 0.3})
    changed = [*command[:3], other, *command[4:], result]
    one_line_error(run(*changed), "made with another model or other options")
    shutil.rmtree(other)
    (tmp_path / "other.jsonl").write_text("\n".join(lines[1:]))
    other = [*command[:5], tmp_path / "other.jsonl", "--output_file", result]
    one_line_error(run(*other), "result.jsonl.partial, line 1: of another input than document 1")
    (tmp_path / "other.jsonl").write_text(lines[0])
    one_line_error(run(*other), "result.jsonl.partial: has more documents than the input")
    assert partial_file.read_text() == "".join(whole.read_text().splitlines(keepends=True)[:2])
    with partial_file.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        one_line_error(run(*command, result), "another process writes it")
    slowly = subprocess.Popen([*map(str, [*command[:4], "--output_file", result])], **options)
    for line in [*lines[:4], "{"]:  # the lines come one by one, in groups of their own
        slowly.stdin.write(f"{line}\n")
        slowly.stdin.flush()
        time.sleep(0.2)
    slowly.stdin.close()
    assert slowly.wait() == 2
    assert partial_file.read_text() == "".join(whole.read_text().splitlines(keepends=True)[:4])
    finished = run(*command, result)
    assert "6 documents to" in finished.stderr
    assert result.read_text() == whole.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes.jsonl",
        "other.jsonl",
        "result.jsonl",
        "whole.jsonl",
    ]


def test_no_file_of_the_user_is_taken_for_unfinished_output(saved, tmp_path):
    text = json.dumps({"text": TEXT})
    command = ["scripts/predict.py", "--model", saved, "--output_file", tmp_path / "x.jsonl"]
    for name in ("x.jsonl.partial", "x.jsonl.partial.json"):
        (tmp_path / name).write_text(text)
        one_line_error(run(PYTHON, *command, "--input_file", tmp_path / name), f"{name}: would be written over")
        assert (tmp_path / name).read_text() == text
        (tmp_path / name).unlink()
    (tmp_path / "x.jsonl.partial").write_text("mine")
    (tmp_path / "in.jsonl").write_text(text)
    one_line_error(
        run(PYTHON, *command, "--input_file", tmp_path / "in.jsonl"), "x.jsonl.partial: not made by this command"
    )
    assert (tmp_path / "x.jsonl.partial").read_text() == "mine"
    one_line_error(run(PYTHON, *command[:3], "--text", TEXT, "--output_file", ""), "--output_file: the name is empty")


@pytest.mark.slow(10)
def test_a_full_disk_is_named_and_the_run_goes_on_later(saved, tmp_path):
    notes = tmp_path / "notes.jsonl"
    notes.write_text("".join(json.dumps({"text": f"{number} {TEXT}"}) + "\n" for number in range(200)))
    command = f"scripts/predict.py --model {saved} --input_file {notes} --output_file {tmp_path / 'x.jsonl'}"
    limited = ["bash", "-c", f"ulimit -f 8; exec {sys.executable} {command}"]
    result = subprocess.run(limited, cwd=ROOT, capture_output=True, text=True)
    assert "x.jsonl: cannot be written (File too large)" in result.stderr
    assert result.returncode == 2
    assert run(PYTHON, *command.split()).returncode == 0
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 200


def test_a_bad_row_is_found_before_the_model_runs(saved, tmp_path):
    (tmp_path / "notes.jsonl").write_text(json.dumps({"text": TEXT}) + "\n{\n")
    command = ["scripts/predict.py", "--model", saved, "--input_file", tmp_path / "notes.jsonl"]
    result = run(PYTHON, *command)
    one_line_error(result, "notes.jsonl, line 2: malformed JSON")
    assert not result.stdout
