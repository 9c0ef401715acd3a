"""Labels that are probably wrong: they are found once, shown, decided about in a browser, and corrected."""

from __future__ import annotations

import gzip
import json
import random
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PYTHON, ROOT

from glinerko.common import DataError, file_digest, read_json_lines, write_json, write_json_lines
from glinerko.corpus.corrections import Change, correct_lines, correct_row
from glinerko.corpus.matching import find_mention
from glinerko.corpus.parsing import parse_row
from glinerko.corpus.reading import load_rows
from glinerko.corpus.rows import Example, Span
from glinerko.corpus.words import load_word_splitter
from glinerko.scoring.candidates import find_candidates, read_candidates
from glinerko.scoring.review import Kind, review_labels

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = "scripts/review_labels.py"
MIN_SCORE = 0.03  # parts the planted faults from the others
HOSTILE = """<img src=x onerror="document.title='changed'">"""


@pytest.fixture(scope="session")
def clean(sample_rows):
    """Documents of the sample corpus."""
    return [Example.from_row(row) for row in sample_rows.select(range(150))]


@pytest.fixture(scope="session")
def words(clean):
    return load_word_splitter("korean").split_batch([example.text for example in clean])


def predicted(examples, words, seed=1):
    """Candidates as a fair model has them: what should be labelled with high scores, other spans with low ones."""
    rng = random.Random(seed)
    candidates = []
    for example, of_document in zip(examples, words, strict=True):
        spans = {key: Span(*key, rng.uniform(0.6, 0.99)) for key in example.gold_spans}
        for _ in range(6):
            first = rng.randrange(len(of_document))
            last = min(first + rng.randrange(3), len(of_document) - 1)
            key = (of_document[first][0], of_document[last][1], rng.choice(example.labels))
            spans.setdefault(key, Span(*key, rng.uniform(0.05, 0.3)))
        candidates.append(list(spans.values()))
    return candidates


def relabelled(example, removed, added):
    """The example with other gold."""
    spans = (example.gold_spans - removed) | added
    row = {"id": example.id, "text": example.text, "entities": dict.fromkeys(example.labels, ())}
    row["entities"] = {
        label: [{"text": example.text[s:e], "start": s, "end": e} for s, e, own in sorted(spans) if own == label]
        for label in example.labels
    }
    return Example.from_row(parse_row(row, ""))


def plant(examples, words):
    """Faults in ten documents, by the index of the document: (kind, faulty spans, right spans)."""
    rng, faults = random.Random(7), {}
    faulty = list(examples)
    for document in (number for number, each in enumerate(examples) if each.gold_spans):
        if len(faults) == 12:
            break
        start, end, label = span = sorted(examples[document].gold_spans)[0]
        of_document = words[document]
        after = next((e for s, e in of_document if s >= end), None)
        kind = (Kind.MISSING, Kind.OTHER_LABEL, Kind.OTHER_BOUNDARY, Kind.UNSUPPORTED)[len(faults) % 4]
        removed, added = {span}, set()
        if kind is Kind.OTHER_LABEL:
            added = {(start, end, rng.choice([each for each in examples[document].labels if each != label]))}
        if kind is Kind.OTHER_BOUNDARY:
            if after is None or any(s < after and end <= s for s, _, _ in examples[document].gold_spans):
                continue
            added = {(start, after, label)}
        if kind is Kind.UNSUPPORTED:
            gold = examples[document].gold_spans
            free = [(s, e) for s, e in of_document if not any(s < end and start < e for start, end, _ in gold)]
            removed, added = set(), {(*free[-2], label)}
        faulty[document] = relabelled(examples[document], removed, added)
        faults[document] = (kind, added, removed)
    return faulty, faults


def keys(items):
    return {item.span.key for item in items}


def test_planted_faults_come_first_with_both_readings_and_their_kind(clean, words):
    faulty, faults = plant(clean, words)
    assert len(faults) == 12
    findings = review_labels(faulty, predicted(clean, words), words, 12).findings
    first = findings[: len(faults)]
    assert {finding.document for finding in first} == faults.keys()
    for finding in first:
        kind, wrong, right = faults[finding.document]
        assert (keys(finding.current), keys(finding.proposed)) == (wrong, right)
        alike = {kind, Kind.INCONSISTENT} if kind in (Kind.MISSING, Kind.UNSUPPORTED) else {kind}
        assert finding.kind in alike
    assert first[-1].score > 3 * findings[len(faults)].score
    assert [f.score for f in findings] == sorted((f.score for f in findings), reverse=True)


def test_a_place_is_found_once(clean, words):
    faulty, _ = plant(clean, words)
    findings = review_labels(faulty, predicted(clean, words), words, 12).findings
    taken = {}
    for finding in findings:
        for start, end, _ in keys(finding.current) | keys(finding.proposed):
            others = taken.setdefault(finding.document, {})
            assert not any(s < end and start < e for (s, e), owner in others.items() if owner is not finding)
        taken[finding.document].update({key[:2]: finding for key in keys(finding.current) | keys(finding.proposed)})
    places = {(f.document, key) for f in findings for key in keys(f.current)}
    assert places == {(n, key) for n, each in enumerate(faulty) for key in each.gold_spans}  # none is left out


def test_the_same_string_in_other_documents_decides_where_the_score_does_not():
    texts = [f"{number}번 환자는 당뇨병 소견이 있다." for number in range(30)]
    entity = {"text": "당뇨병", "start": texts[0].index("당뇨병"), "end": texts[0].index("당뇨병") + 3}
    examples = []
    for number, text in enumerate(texts):
        shift = text.index("당뇨병") - entity["start"]
        own = {**entity, "start": entity["start"] + shift, "end": entity["end"] + shift}
        row = {"text": text, "entities": {"Disease": [] if number == 3 else [own]}}
        examples.append(Example.from_row(parse_row(row, f"d{number}")))
    words = load_word_splitter("korean").split_batch(texts)
    candidates = [
        [Span(t.index("당뇨병"), t.index("당뇨병") + 3, "Disease", 0.45), Span(0, 1, "Disease", 0.45)] for t in texts
    ]
    first = review_labels(examples, candidates, words, 12).findings[0]
    assert (first.document, first.kind) == (3, Kind.INCONSISTENT)
    assert (first.proposed[0].uses.agree, first.proposed[0].uses.unlabelled) == (29, 0)  # not its own document


def test_where_mentions_are_nested_a_missing_one_replaces_none():
    texts = [f"{number}번 환자는 급성 심부전 소견이 있다." for number in range(30)]
    examples, candidates = [], []
    for number, text in enumerate(texts):
        start, end = inner_of(text)
        spans = [(text.index("급성"), end, "Disease"), (start, end, "Finding")]
        bare = Example(f"d{number}", text, ("Disease", "Finding"), ())
        examples.append(relabelled(bare, set(), set(spans[:1] if number == 3 else spans)))
        candidates.append([Span(*key, 0.9) for key in spans] + [Span(0, 1, "Finding", 0.1)])
    words = load_word_splitter("korean").split_batch(texts)
    first = review_labels(examples, candidates, words, 12).findings[0]
    assert (first.document, keys(first.current), keys(first.proposed)) == (3, set(), {(*inner_of(texts[3]), "Finding")})


def inner_of(text):
    return text.index("심부전"), text.index("심부전") + 3


def test_a_label_that_a_document_was_not_annotated_for_is_no_finding(clean, words):
    examples = [relabelled(example, set(), set()) for example in clean]
    only = Example(clean[0].id, clean[0].text, ("Drug",), ())
    findings = review_labels([only, *examples[1:]], predicted(clean, words), words, 12).findings
    assert {label for f in findings if f.document == 0 for label in f.labels} <= {"Drug"}


def test_a_document_that_was_not_annotated_for_entities_is_no_finding(clean, words):
    for annotated, found in (("entities", True), ("classifications", False)):
        other = replace(clean[0], labels=(), mentions=(), annotated=(annotated,))
        findings = review_labels([other, *clean[1:]], predicted(clean, words), words, 12).findings
        assert any(finding.document == 0 for finding in findings) == found


def test_without_a_mention_nothing_can_be_compared(clean, words):
    bare = [Example(e.id, e.text, e.labels, ()) for e in clean]
    with pytest.raises(DataError, match="no mention is a run of words"):
        review_labels(bare, predicted(clean, words), words, 12)


# Candidates


def write_candidates(path, examples, candidates):
    lines = (
        {"id": e.id, "spans": [[*s.key, s.score] for s in own]} for e, own in zip(examples, candidates, strict=True)
    )
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda lines: lines[:-1], "no candidates for the document 'train-149'"),
        (lambda lines: [*lines, lines[0]], "line 151: the document 'train-0' is covered twice"),
        (lambda lines: [*lines, '{"id": "other", "spans": []}'], "the corpus has no document 'other'"),
        (lambda lines: ['{"id": "train-0", "spans": [[0, 999, "Drug", 0.5]]}', *lines[1:]], "of another corpus"),
        (lambda lines: ['{"id": "train-0", "spans": [[0, 1, "Gene", 0.5]]}', *lines[1:]], "no label 'Gene'"),
        (lambda lines: ['{"id": "train-0", "spans": [[0, 1, "Drug"]]}', *lines[1:]], 'line 1: expected {"id"'),
        (lambda lines: ["[1]", *lines[1:]], 'line 1: expected {"id"'),
        (lambda lines: ["{", *lines[1:]], "line 1: malformed JSON: Expecting property name"),
        (lambda lines: ["[" * 100_000, *lines[1:]], "line 1: malformed JSON: nested too deeply"),
        (lambda lines: ['{"id": [1], "spans": []}', *lines[1:]], 'line 1: expected {"id"'),
    ],
)
def test_candidates_that_do_not_cover_each_document_once_are_refused(clean, tmp_path, change, expected):
    path = tmp_path / "candidates.jsonl"
    write_candidates(path, clean, [[] for _ in clean])
    path.write_text("\n".join(change(path.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    with pytest.raises(DataError) as error:
        read_candidates([str(path)], clean, clean[0].labels)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def same_ids(examples):
    """Documents 0, 2, 4 ... with the id of the first one; document 4 is document 2 once more."""
    examples = [examples[2] if number == 4 else each for number, each in enumerate(examples)]
    return [replace(each, id="same") if number % 2 == 0 else each for number, each in enumerate(examples)]


def test_documents_with_the_same_id_are_told_apart_by_the_fold_that_held_them_out(clean, tmp_path):
    documents = same_ids(clean[:10])
    candidates = [[Span(0, number + 1, "Drug", 0.5)] for number in range(10)]
    files = []
    for fold in (1, 0):  # the folds in another order than the corpus
        directory = tmp_path / f"fold-{fold}" / "default" / "dev"
        directory.mkdir(parents=True)
        rows = ({"id": each.id, "text": each.text} for each in documents[fold::2])
        (tmp_path / f"fold-{fold}" / "dev.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files.append(write_candidates(directory / "candidates.jsonl", documents[fold::2], candidates[fold::2]))
    found = read_candidates(find_candidates(str(tmp_path), "default", documents), documents, clean[0].labels)
    assert [[span.key for span in spans] for spans in found] == [[span.key for span in own] for own in candidates]
    copies = [shutil.copy(file, tmp_path / f"{number}.jsonl") for number, file in enumerate(files)]
    with pytest.raises(DataError, match=r"1\.jsonl, line 1: the id 'same' stands for several texts: pass --cross_val"):
        read_candidates(copies, documents, clean[0].labels)


def test_copies_of_a_document_need_no_fold(clean, tmp_path):
    documents = [clean[0], clean[0]]
    file = write_candidates(tmp_path / "c.jsonl", documents, [[Span(0, end, "Drug", 0.5)] for end in (1, 2)])
    found = read_candidates([file], documents, clean[0].labels)
    assert [spans[0].end for spans in found] == [1, 2]
    with pytest.raises(DataError, match="'train-0' is covered twice"):
        read_candidates([file, file], documents, clean[0].labels)


# Corrections


def test_one_occurrence_of_a_mention_string_is_changed_and_the_others_get_offsets():
    text = "당뇨병과 당뇨병, 간이식"
    raw = {"text": text, "entities": {"Disease": ["당뇨병", "없는 말"], "Procedure": ["간이식"]}, "note": {"kept": 1}}
    row = parse_row(raw, "a")
    change = Change(1, "a", "line 1", frozenset({(5, 8, "Disease")}), frozenset({(10, 11, "Organ")}))
    corrected = correct_row(raw, row, [change])
    assert corrected == {
        "text": text,
        "entities": {
            "Disease": [{"text": "당뇨병", "start": 0, "end": 3}, "없는 말"],
            "Procedure": [{"text": "간이식", "start": 10, "end": 13}],
            "Organ": [{"text": "간", "start": 10, "end": 11}],
        },
        "note": {"kept": 1},
    }
    assert find_mention(text, "당뇨병") == [(0, 3), (5, 8)]
    assert raw["entities"]["Disease"] == ["당뇨병", "없는 말"]


@pytest.mark.parametrize(
    "wrap",
    [lambda body: {"input": "혈당과 당뇨병", "output": body}, lambda body: {"text": "혈당과 당뇨병", "schema": body}],
)
def test_other_forms_of_a_row_keep_their_form(wrap):
    others = {"classifications": [{"task": "경과", "labels": ["호전", "악화"], "true_label": "호전"}], "relations": []}
    raw = wrap({"entities": {"Biomarker": ["혈당"]}, **others})
    change = Change(1, "a", "line 1", frozenset({(0, 2, "Biomarker")}), frozenset({(4, 7, "Disease")}))
    corrected = correct_row(raw, parse_row(raw, "a"), [change])
    expected = {"Biomarker": [], "Disease": [{"text": "당뇨병", "start": 4, "end": 7}]}
    assert corrected == wrap({"entities": expected, **others})


def test_a_compressed_corpus_is_corrected(write_rows):
    file = write_rows(
        {"text": "당뇨병에 인슐린", "entities": {"Disease": ["당뇨병"], "Drug": []}}, {"text": "없음", "entities": {}}
    )
    packed = f"{file}.gz"
    Path(packed).write_bytes(gzip.compress(Path(file).read_bytes()))
    change = Change(1, "0", "line 1", frozenset(), frozenset({(5, 8, "Drug")}))
    lines = [list(correct_lines(each, load_rows(each)[0], {"line 1": [change]})) for each in (file, packed)]
    assert lines[0] == lines[1]
    assert json.loads(lines[0][0])["entities"]["Drug"] == [{"text": "인슐린", "start": 5, "end": 8}]


def test_a_span_that_is_not_there_cannot_be_removed():
    raw = {"text": "혈당", "entities": {"Biomarker": []}}
    with pytest.raises(DataError, match="a: the finding does not fit"):
        correct_row(raw, parse_row(raw, "a"), [Change(1, "a", "line 1", frozenset({(0, 2, "Biomarker")}), frozenset())])


# The script


def run(*arguments, python=PYTHON):
    command = [python, SCRIPT, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="session")
def reviewed(clean, words, tmp_path_factory):
    """A corpus with planted faults, some rows of it with mention strings, and the output of the script."""
    directory = tmp_path_factory.mktemp("review")
    faulty, faults = plant(clean, words)
    lines = []
    for number, example in enumerate(faulty):
        entities = {label: [] for label in example.labels}
        for start, end, label in sorted(example.gold_spans):
            string = example.text[start:end]
            alone = find_mention(example.text, string) == [(start, end)] and number % 2
            entities[label].append(string if alone else {"text": string, "start": start, "end": end})
        lines.append(json.dumps({"id": example.id, "text": example.text, "entities": entities, "more": number}))
    corpus = directory / "rows.jsonl"
    corpus.write_text("\n".join(lines), encoding="utf-8")  # no line end after the last row
    halves = [write_candidates(directory / f"{n}.jsonl", clean[n::2], predicted(clean, words)[n::2]) for n in (0, 1)]
    output = directory / "review"
    more = ["--output_dir", output, "--min_score", MIN_SCORE]
    result = run("--train_file", corpus, "--candidates", *halves, *more, python=sys.executable)
    assert result.returncode == 0, result.stderr
    assert "--apply decisions.jsonl" in result.stdout
    return corpus, output, faults, halves


def findings_of(output):
    return [json.loads(line) for line in (output / "findings.jsonl").read_text(encoding="utf-8").splitlines()]


def decide(reviewed, path, *decisions, **changed):
    """Write a decision about each of the first findings."""
    corpus, output, _, _ = reviewed
    digests = {"corpus": file_digest(corpus), "findings": file_digest(output / "findings.jsonl")}
    lines = (
        {"finding": f["finding"], "id": f["id"], "decision": decision, **digests, **changed}
        for f, decision in zip(findings_of(output), decisions, strict=False)
    )
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def apply(reviewed, decisions, output_file):
    return run(
        "--train_file", reviewed[0], "--output_dir", reviewed[1], "--apply", decisions, "--output_file", output_file
    )


def gold(path):
    return {row["id"]: Example.from_row(row).gold_spans for row in load_rows(str(path))[0]}


@pytest.mark.slow(5)
def test_labels_that_the_models_do_not_know_are_not_reviewed(reviewed, tmp_path):
    corpus, _, _, halves = reviewed
    for number, half in enumerate(halves):
        (tmp_path / str(number)).mkdir()
        lines = read_json_lines(Path(half))
        own = [{**line, "spans": [span for span in line["spans"] if span[2] == "Drug"]} for line in lines]
        write_json_lines(tmp_path / str(number) / "candidates.jsonl", own)
        write_json(tmp_path / str(number) / "report.json", {"data": {"labels": ["Drug"]}})
    files = [tmp_path / number / "candidates.jsonl" for number in "01"]
    more = ["--output_dir", tmp_path / "review", "--min_score", 0]
    result = run("--train_file", corpus, "--candidates", *files, *more)
    assert "The models know Drug only: other labels are not reviewed" in result.stdout
    findings = findings_of(tmp_path / "review")
    assert {span["label"] for each in findings for side in ("current", "proposed") for span in each[side]} == {"Drug"}


@pytest.mark.slow(10)
def test_accepted_proposals_correct_the_corpus_and_others_do_not(reviewed, clean, tmp_path):
    corpus, _, faults, _ = reviewed
    decisions = decide(reviewed, tmp_path / "decisions.jsonl", *["accept"] * (len(faults) - 2), "reject", "skip")
    result = apply(reviewed, decisions, tmp_path / "corrected.jsonl")
    assert result.returncode == 0, result.stderr
    assert "10 proposals applied to 10 of 150 documents; 1 reject, 1 skip; 0 findings" in result.stdout
    before, after = gold(corpus), gold(tmp_path / "corrected.jsonl")
    right = {example.id: example.gold_spans for example in clean}
    assert sum(before[name] != right[name] for name in right) == len(faults)
    assert sum(after[name] != right[name] for name in right) == 2
    changes = [
        json.loads(line) for line in (tmp_path / "corrected.jsonl.changes.jsonl").read_text("utf-8").splitlines()
    ]
    assert {change["id"] for change in changes} == {name for name in right if before[name] != after[name]}
    for change in changes:
        sides = ({(s["start"], s["end"], s["label"]) for s in change[side]} for side in ("removed", "added"))
        removed, added = sides
        assert (before[change["id"]] - removed) | added == after[change["id"]]
    lines = [path.read_text(encoding="utf-8").splitlines() for path in (corpus, tmp_path / "corrected.jsonl")]
    assert sum(old != new for old, new in zip(*lines, strict=True)) == 10
    assert [json.loads(line)["more"] for line in lines[1]] == list(range(150))


@pytest.mark.parametrize("decision", ["reject", "skip"])
def test_without_an_accepted_proposal_the_corpus_stays_as_it_is(reviewed, tmp_path, decision):
    decisions = decide(reviewed, tmp_path / "decisions.jsonl", *[decision] * 20)
    assert apply(reviewed, decisions, tmp_path / "corrected.jsonl").returncode == 0
    assert (tmp_path / "corrected.jsonl").read_text("utf-8") == reviewed[0].read_text("utf-8") + "\n"
    assert (tmp_path / "corrected.jsonl.changes.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"corpus": "0" * 64}, "line 1: a decision of another corpus file"),
        ({"findings": "0" * 64}, "line 1: a decision of another findings file"),
        ({"id": "train-x"}, "there is no such finding"),
        ({"finding": 10**6}, "there is no such finding"),
        ({"decision": "yes"}, "must be accept, reject or skip"),
        ({"finding": 1}, "finding 1"),
    ],
)
def test_decisions_about_something_else_are_refused(reviewed, tmp_path, changed, expected):
    if changed == {"finding": 1}:
        decisions = decide(reviewed, tmp_path / "decisions.jsonl", "accept")
        line = decisions.read_text(encoding="utf-8")
        decisions.write_text(line + line.replace("accept", "reject"), encoding="utf-8")
    else:
        decisions = decide(reviewed, tmp_path / "decisions.jsonl", "accept", **changed)
    result = apply(reviewed, decisions, tmp_path / "corrected.jsonl")
    refused(result, expected)
    assert not (tmp_path / "corrected.jsonl").exists()


def refused(result, expected):
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert expected in line


def test_malformed_decisions_and_missing_findings_are_refused(reviewed, tmp_path):
    decisions = tmp_path / "decisions.jsonl"
    for content in ("{", "[]", '{"finding": 1}'):
        decisions.write_text(content, encoding="utf-8")
        refused(apply(reviewed, decisions, tmp_path / "corrected.jsonl"), "decisions.jsonl, line 1: ")
    other = reviewed[0], tmp_path, {}, []
    refused(apply(other, decisions, tmp_path / "corrected.jsonl"), "findings.jsonl: no such file")
    for content, reason in (("{", "malformed JSON"), ("[]", "not a finding"), ('{"finding": 1}', "not a finding")):
        (tmp_path / "findings.jsonl").write_text(content, encoding="utf-8")
        refused(apply(other, decisions, tmp_path / "corrected.jsonl"), f"findings.jsonl, line 1: {reason}")


@pytest.mark.slow(6)
def test_documents_with_the_same_id_are_corrected_by_their_place(reviewed, clean, tmp_path):
    """All documents of the corpus get one id; the files of candidates are those of two folds."""
    corpus = tmp_path / "rows.jsonl"
    rows = [{**json.loads(line), "id": "same"} for line in reviewed[0].read_text(encoding="utf-8").splitlines()]
    corpus.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    for number, half in enumerate(reviewed[3]):
        (tmp_path / f"fold-{number}" / "default" / "dev").mkdir(parents=True)
        lines = [{**line, "id": "same"} for line in read_json_lines(Path(half))]
        file = tmp_path / f"fold-{number}" / "default" / "dev" / "candidates.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        held_out = "".join(json.dumps(row) + "\n" for row in rows[number::2])
        (tmp_path / f"fold-{number}" / "dev.jsonl").write_text(held_out, encoding="utf-8")
    more = ["--output_dir", tmp_path / "out", "--min_score", MIN_SCORE]
    result = run("--train_file", corpus, "--cross_validation", tmp_path, *more)
    assert result.returncode == 0, result.stderr
    found = findings_of(tmp_path / "out")
    assert [{**each, "id": ""} for each in found] == [{**each, "id": ""} for each in findings_of(reviewed[1])]
    same = corpus, tmp_path / "out", None, None
    decisions = decide(same, tmp_path / "decisions.jsonl", *["accept"] * len(found))
    assert apply(same, decisions, tmp_path / "corrected.jsonl").returncode == 0
    after = [Example.from_row(row).gold_spans for row in load_rows(str(tmp_path / "corrected.jsonl"))[0]]
    assert after == [example.gold_spans for example in clean]
    changes = (tmp_path / "corrected.jsonl.changes.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["place"] for line in changes} == {each["place"] for each in found}


def test_an_input_is_never_written_over(reviewed, tmp_path):
    decisions = decide(reviewed, tmp_path / "decisions.jsonl", "accept")
    for target in (reviewed[0], decisions, reviewed[1] / "findings.jsonl"):
        before = target.read_bytes()
        refused(apply(reviewed, decisions, target), "would be written over")
        assert target.read_bytes() == before
    more = ["--candidates", *reviewed[3], "--output_dir", tmp_path]
    for name in ("findings.jsonl", "index.html", "label_studio.json.config.xml"):
        (tmp_path / name).write_bytes(reviewed[0].read_bytes())
        refused(run("--train_file", tmp_path / name, *more), "would be written over")


def test_options_that_do_not_go_together_are_refused(reviewed, tmp_path):
    corpus = ["--train_file", reviewed[0]]
    refused(run(*corpus), "pass --candidates FILE... or --cross_validation DIRECTORY")
    refused(run(*corpus, "--apply", "decisions.jsonl"), "--output_file corrected.jsonl together")
    refused(run(*corpus, "--cross_validation", tmp_path), "run scripts/cross_validate.py first")
    refused(run(*corpus, "--candidates", reviewed[3][0], "--output_dir", tmp_path), "pass the files of all folds")


def test_a_cross_validation_of_other_texts_is_refused(reviewed, clean, tmp_path):
    for number, half in enumerate(reviewed[3]):
        (tmp_path / f"fold-{number}" / "default" / "dev").mkdir(parents=True)
        shutil.copy(half, tmp_path / f"fold-{number}" / "default" / "dev" / "candidates.jsonl")
    arguments = ["--train_file", reviewed[0], "--cross_validation", tmp_path, "--output_dir", tmp_path / "out"]
    arguments += ["--min_score", MIN_SCORE]
    assert run(*arguments).returncode == 0
    assert (tmp_path / "out" / "findings.jsonl").read_bytes() == (reviewed[1] / "findings.jsonl").read_bytes()
    (tmp_path / "fold-0" / "dev.jsonl").write_text(json.dumps({"id": "train-0", "text": "다른 글"}), encoding="utf-8")
    refused(run(*arguments), "the document 'train-0' has another text than in the corpus")


def test_annotation_tools_get_the_proposals(reviewed, clean):
    _, output, faults, _ = reviewed
    right = {example.id: example.gold_spans for example in clean}
    tasks = json.loads((output / "label_studio.json").read_text(encoding="utf-8"))
    assert {task["data"]["id"] for task in tasks} == {clean[document].id for document in faults}
    findings = {finding["id"]: finding for finding in findings_of(output)}
    for task in tasks:
        (prediction,), finding = task["predictions"], findings[task["data"]["id"]]
        assert prediction["score"] == finding["score"]
        scored = [(r["value"]["start"], r["value"]["end"], r["score"]) for r in prediction["result"] if "score" in r]
        assert scored == [(span["start"], span["end"], finding["score"]) for span in finding["proposed"]]
        values = [result["value"] for result in prediction["result"]]
        assert {(v["start"], v["end"], v["labels"][0]) for v in values} == right[task["data"]["id"]]
    assert '<Label value="Disease"/>' in (output / "label_studio.json.config.xml").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (output / "doccano.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all({tuple(each) for each in line["label"]} == right[line["id"]] for line in lines)
    record = json.loads((output / "review.json").read_text(encoding="utf-8"))
    assert record["weights"]["score"] > 0


def test_without_a_finding_there_is_an_empty_review(reviewed, tmp_path):
    more = ["--candidates", *reviewed[3], "--output_dir", tmp_path, "--min_score", "1"]
    assert run("--train_file", reviewed[0], *more).returncode == 0
    assert (tmp_path / "findings.jsonl").read_text() == ""
    assert json.loads((tmp_path / "label_studio.json").read_text()) == []
    assert "<article" not in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_benchmark_plants_the_noise_that_it_says(clean, words, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from label_noise import KINDS, plant_noise

    spans, faults = plant_noise(clean, words, clean[0].labels, 0.2, KINDS, seed=3)
    assert len(faults) == round(0.2 * sum(len(example.gold_spans) for example in clean))
    assert plant_noise(clean, words, clean[0].labels, 0.2, KINDS, seed=3) == (spans, faults)
    expected = [set(example.gold_spans) for example in clean]
    for fault in faults:
        expected[fault.document].remove(fault.clean)
        expected[fault.document] |= {fault.noisy} if fault.noisy else set()
        before, after = fault.clean, fault.noisy
        changed = "drop" if after is None else "relabel" if before[:2] == after[:2] else "shift"
        assert fault.kind == changed
        assert after is None or (before[2] == after[2]) == (changed == "shift")
    assert spans == expected


# The page


@pytest.fixture
def browse(tmp_path):
    """Open a page in Chromium, run a script in it, and return what the script puts into ``result``."""
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")

    def open_page(page, script):
        copy = tmp_path / "page.html"
        more = f"<script>{{ {script}\nconst pre = document.createElement('pre'); pre.id = 'result';\n" \
               "pre.textContent = JSON.stringify(result); document.body.append(pre); }</script></body>"  # fmt: skip
        copy.write_text(page.read_text(encoding="utf-8").replace("</body>", more), encoding="utf-8")
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
                 "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
        command = [BROWSER, *flags, "--dump-dom", copy.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120)
        found = re.search(r'<pre id="result">(.*?)</pre>', shown.stdout, re.DOTALL)
        assert found, shown.stderr
        return json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))

    return open_page


KEYS = """
const press = (key, code = "") => document.body.dispatchEvent(new KeyboardEvent("keydown", { key, code, bubbles: true }));
const at = () => Number(document.querySelector('article[aria-current="true"]').dataset.finding);
"""


@pytest.mark.slow(6)
def test_the_keys_of_the_page_decide_and_its_file_can_be_applied(reviewed, browse, tmp_path):
    script = (
        KEYS
        + """
    const places = [at()];
    for (const key of ["a", "r", "s", "ArrowDown", "a", "ArrowUp", "ArrowUp"]) { press(key); places.push(at()); }
    press("ㅁ", "KeyA"); places.push(at());
    document.querySelector('article[data-finding="1"] [data-decision="skip"]').click(); places.push(at());
    let name = "", saved = null;
    URL.createObjectURL = (blob) => { saved = blob; return "blob:none"; };
    HTMLAnchorElement.prototype.click = function () { name = this.download; };
    document.getElementById("save").click();
    const result = { places, name, size: saved.size, lines: decisionLines(), stored: localStorage.getItem(storage),
      shown: document.getElementById("shown").textContent };
    """
    )
    result = browse(reviewed[1] / "index.html", script)
    assert result["places"] == [1, 2, 3, 4, 5, 6, 5, 4, 5, 1]
    lines = [json.loads(line) for line in result["lines"].splitlines()]
    assert [(line["finding"], line["decision"]) for line in lines] == [
        (1, "skip"), (2, "reject"), (3, "skip"), (4, "accept"), (5, "accept"),
    ]  # fmt: skip
    assert (result["name"], result["size"]) == ("decisions.jsonl", len(result["lines"].encode()))
    assert json.loads(result["stored"]) == {str(line["finding"]): line["decision"] for line in lines}
    assert result["shown"].endswith("2 accept, 1 reject, 2 skip")
    (tmp_path / "decisions.jsonl").write_text(result["lines"], encoding="utf-8")
    applied = apply(reviewed, tmp_path / "decisions.jsonl", tmp_path / "corrected.jsonl")
    assert "2 proposals applied to 2 of 150 documents" in applied.stdout, applied.stderr


@pytest.mark.slow(6)
def test_a_page_goes_on_with_stored_decisions_and_filters(reviewed, browse):
    findings = findings_of(reviewed[1])
    kind = findings[-1]["kind"]
    label = findings[0]["proposed"][0]["label"] if findings[0]["proposed"] else findings[0]["current"][0]["label"]
    script = (
        KEYS
        + f"""
    const visible = () => articles.filter((a) => !a.hidden).map((a) => Number(a.dataset.finding));
    const choose = (filter, value) => {{ filter.value = value; filter.dispatchEvent(new Event("change")); return visible(); }};
    press("a"); press("r");
    decisions = JSON.parse(localStorage.getItem(storage));
    filters.undecided.click(); const undecided = visible(); const first = at(); filters.undecided.click();
    const of_kind = choose(filters.kind, {json.dumps(kind)}); choose(filters.kind, "");
    const of_label = choose(filters.label, {json.dumps(label)});
    const result = {{ undecided, first, of_kind, of_label }};
    """
    )
    result = browse(reviewed[1] / "index.html", script)
    numbers = [finding["finding"] for finding in findings]
    assert (result["undecided"], result["first"]) == (numbers[2:], 3)
    assert result["of_kind"] == [f["finding"] for f in findings if f["kind"] == kind]
    with_label = [f["finding"] for f in findings if label in {s["label"] for s in (*f["current"], *f["proposed"])}]
    assert result["of_label"] == with_label


@pytest.mark.slow(6)
def test_saved_decisions_are_opened_again_and_others_are_not(reviewed, browse, tmp_path):
    own = decide(reviewed, tmp_path / "own.jsonl", "reject", "accept").read_text(encoding="utf-8")
    other = decide(reviewed, tmp_path / "other.jsonl", *["accept"] * 3, corpus="0" * 64).read_text(encoding="utf-8")
    script = (
        KEYS
        + f"""
    press("a");
    openLines({json.dumps(own + other)} + "\\nnull\\n{{");
    const result = {{ lines: decisionLines(), at: at(), shown: document.getElementById("opened").textContent }};
    """
    )
    result = browse(reviewed[1] / "index.html", script)
    assert (result["lines"], result["at"]) == (own.replace('": ', '":').replace(', "', ',"'), 3)
    assert result["shown"] == "2 decisions opened; 5 lines are not decisions of this review"


@pytest.mark.slow(8)
def test_hostile_texts_and_labels_are_shown_as_they_are(browse, tmp_path, write_rows):
    label = HOSTILE.replace("changed", "label") + ' "quoted"  &amp;'
    name = "</script><script>document.title='id'</script>"
    texts = [f"😀{HOSTILE} 당뇨병 {number}" for number in range(12)]
    start = texts[0].index("당뇨병")
    spans = {"text": "당뇨병", "start": start, "end": start + 3}
    rows = [
        {"id": f"{name}{n}", "text": t, "entities": {label: [] if n == 0 else [spans]}} for n, t in enumerate(texts)
    ]
    lines = [{"id": row["id"], "spans": [[start, start + 3, label, 0.9], [1, 2, label, 0.1]]} for row in rows]
    corpus, candidates = write_rows(*rows), write_rows(*lines, name="candidates.jsonl")
    result = run("--train_file", corpus, "--candidates", candidates, "--output_dir", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    page = tmp_path / "out" / "index.html"
    content = page.read_text(encoding="utf-8")
    assert HOSTILE not in content
    assert not re.search(r'(src|href)="https?:', content)
    script = (
        KEYS
        + """
    press("a");
    const article = articles[0];
    filters.label.selectedIndex = 1; filters.label.dispatchEvent(new Event("change"));
    const result = { title: document.title, images: document.images.length, hidden: article.hidden,
      mark: article.querySelector(".proposed mark").firstChild.data,
      label: article.querySelector(".proposed small").textContent,
      text: article.querySelector(".text").textContent, lines: decisionLines() };
    """
    )
    result = browse(page, script)
    assert (result["title"], result["images"], result["hidden"]) == ("rows.jsonl: review of labels", 0, False)
    assert (result["mark"], result["label"], result["text"]) == ("당뇨병", label, texts[0])
    assert json.loads(result["lines"])["id"] == f"{name}0"
