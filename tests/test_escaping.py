"""Labels, names of models and of files may hold any character. It is shown as it is, whatever it means to what shows it."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import unicodedata
import warnings
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from conftest import PYTHON, ROOT, SAMPLE
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib import font_manager
from matplotlib.text import Text
from rich.cells import cell_len
from rich.console import Console

from glinerko.cli import make_console
from glinerko.corpus.report import DataReport
from glinerko.corpus.rows import Example, Mention, Span
from glinerko.scoring.analysis import count_errors, judge_spans
from glinerko.scoring.metrics import score_all
from glinerko.sharing import card, page
from glinerko.sharing.card import write_card
from glinerko.sharing.page import evaluation_plots, render_page, save_plots, write_report
from glinerko.sharing.tables import as_markdown, check_table, code_span, evaluation_tables
from glinerko.verification.checks import Check, Status

LABELS = ["질병[/급성]", "Disease [acute]", "[bold]x[/]", ":pill:", r"$\frac$", "비용($)_합($)", r"a\$b$", "약|물", r"약\|물",
          "<b>수치</b>", "</script><script>alert(1)</script>", "<!-- -->", "&lt;", "{{x}}", "{% raw %}", "`a`", "a```b",
          "__init__", "*별표*", "~~선~~", "C#", "# 1", "---", "a'b\"c", "100%", "@a", "![x](y)", "http://a.b/~c", "PASS"]  # fmt: skip
SIGNS = "가 aB1[]()/\\$|<>&*_`~#{}%!:;,.'\"+-=@^?"
ANY_LABEL = (
    st.text(st.sampled_from(SIGNS) | st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=16)
    .map(lambda text: unicodedata.normalize("NFC", text))
    .filter(lambda text: text == text.strip() and cell_len(text))
)
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def any_label(test):
    for label in LABELS:
        test = example(label)(test)
    return settings(max_examples=20, deadline=None)(given(ANY_LABEL)(test))


def file_name(label: str) -> str:
    name = label.replace("/", "")
    return name if name.strip(".") else f"model{name}"


def evaluation(label: str) -> tuple[dict, list[Example], list, dict]:
    """The record of an evaluation in which a label, the model and the test file have this name."""
    labels, text = (label, "Drug two"), "당뇨병으로 인슐린을 투여"
    gold = Mention(label, "당뇨병", ((0, 3),)), Mention("Drug two", "인슐린", ((6, 9),))
    examples, found = [Example(label, text, labels, gold)], [[Span(0, 5, label, 0.9), Span(6, 9, "Drug two", 0.8)]]
    judged = judge_spans(examples, [dict.fromkeys(examples[0].gold_spans, "target")], found, labels)
    scores = score_all(examples, found, labels)
    score = scores["span_f1"].to_dict()
    judgement = {"f1": 0.5, "f1_interval": (0.1, 0.9), "target": 0.6, "verdict": "MISS"}
    named = file_name(label)
    result = {
        "model": label, "documents": 1, "test_file": f"{named}.jsonl", "metric": "span_f1", "threshold": 0.5,
        "threshold_source": "as requested", **{name: each.to_dict() for name, each in scores.items()}, "modes": {},
        "ceiling": {}, "gate": "count gate", "gates": 1, "closed_gates": 0, "data": DataReport(named, documents=1, words=4).to_dict(),
        "targets": {"overall": judgement, label: judgement}, "sweep": {0.5: score["overall"]},
        "average_precision": 0.25, "errors": count_errors(judged),
        "comparisons": [{"model": label, "threshold": 0.5, "f1": 0.5, "f1_interval": (0.1, 0.9), "difference": None}],
    }  # fmt: skip
    return result, examples, judged, scores


class Parsed(HTMLParser):
    """The tags of a page, and the text in each."""

    def __init__(self, content: str):
        super().__init__()
        self.tags, self.texts, self.titles = [], [], []
        self.feed(content)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.texts.append("")
        self.titles += [value for name, value in attributes if name == "title"]

    def handle_data(self, data):
        if self.texts:
            self.texts[-1] += data

    def __contains__(self, text: str) -> bool:
        return text in [each.strip() for each in self.texts]


@any_label
def test_the_console_shows_any_label(label):
    result, *_ = evaluation(label)
    for console in (make_console(), Console(width=120)):  # one that reads markup in strings, too
        with console.capture() as shown:
            for table in evaluation_tables(result):
                console.print(table)
            console.print(check_table([Check(label, Status.WARN, label, label)]))
        lines = shown.get().splitlines()
        assert sum(line.startswith(f"    {label}") for line in lines) >= 2  # two metrics
        assert sum(line.startswith(f"  {label}") for line in lines) >= 2  # target, comparison
        assert any(line.startswith(f"{label} at threshold 0.50") for line in lines)
        assert f"{label} → {label}" in shown.get()
    with (console := make_console()).capture() as shown:
        console.print(label, style="yellow")
        console.rule(label)
    assert shown.get().startswith(f"{label}\n")
    assert f" {label} " in shown.get().splitlines()[-1]


def test_a_label_or_file_name_that_is_longer_than_the_line_is_folded_and_not_cut():
    result, *_ = evaluation("가" * 150)
    with (console := make_console()).capture() as shown:
        for table in evaluation_tables(result):
            console.print(table)
    assert shown.get().count("가") == 150 * 6  # file; model; two metrics, target, comparison
    assert "0.500" in shown.get()


@any_label
def test_the_tables_of_report_md_show_any_label(label):
    result, *_ = evaluation(label)
    tables = [as_markdown(table) for table in evaluation_tables(result)]
    shown, plain = (
        [Parsed(MARKDOWN.render(as_markdown(table))) for table in evaluation_tables(evaluation(each)[0])]
        for each in (label, "plain")
    )
    assert [each.tags for each in shown] == [each.tags for each in plain]
    assert label in shown[1]
    assert label in shown[2]
    assert file_name(label) in shown[0]
    assert all(len(set(map(len, map(str.split, table.splitlines()[:2])))) for table in tables)


@any_label
def test_code_in_markdown_shows_any_name(name):
    shown = Parsed(MARKDOWN.render(f"({code_span(name)})"))
    assert shown.tags == ["p", "code"]
    assert shown.texts[1].strip() == f"{name})"


@any_label
def test_the_page_shows_any_label(label):
    shown, plain = (
        Parsed(render_page(result, {}, examples, judged))
        for result, examples, judged, _ in (evaluation(label), evaluation("plain"))
    )
    assert shown.tags == plain.tags
    wrong = f"{label}: wrong boundary: wider"
    for text in (label, f"label: {label}", f"{label}: evaluation", f"당뇨병 — gold, {wrong}"):
        assert text in shown
    assert f"predicted 0.90, {wrong}; gold, {wrong}" in shown.titles


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("plots")


@example(LABELS)
@settings(max_examples=10, deadline=None)
@given(st.lists(ANY_LABEL, min_size=1, max_size=12, unique=True))
def test_plots_show_any_label(directory, labels):
    result, told = evaluation("Disease")[0], []
    result["targets"] = dict.fromkeys(labels, result["targets"]["Disease"])
    plots = evaluation_plots(result, [(0.9, 0.5, 0.5)])
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # texts as texts
        content = save_plots({"labels": plots["labels"]}, directory, told.append)["labels"]
    assert set(labels) <= {"".join(each.itertext()) for each in ElementTree.fromstring(content).iter()}
    assert [line for line in told if not line.startswith("No installed font has")] == []


@pytest.fixture(scope="session")
def published(tmp_path_factory):
    """A function that writes the card of the example for a model of another name, with a label of another name."""
    source = ROOT / "docs" / "model_card"
    directory = shutil.copytree(source, tmp_path_factory.mktemp("card") / "model")
    digest = json.loads((source / "evaluation.json").read_text(encoding="utf-8"))["weights"]

    def rename(content, label):
        if isinstance(content, dict):
            return {rename(name, label): rename(value, label) for name, value in content.items()}
        if isinstance(content, list):
            return [rename(value, label) for value in content]
        return label if content == "Disease" else content

    def write(label: str) -> Path:
        for name in ("config.json", "evaluation.json"):
            content = rename(json.loads((source / name).read_text(encoding="utf-8")), label)
            if name == "config.json":
                content["glinerko"]["descriptions"][label] = label
            else:
                content["test_file"] = file_name(label)
            (directory / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        return write_card(directory, f"USER/{file_name(label)}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(card, "weights_digest", lambda _: digest)
        patch.setattr(card, "save_plots", lambda *_: None)
        yield write


def test_a_card_shows_any_label_and_its_code_runs(published):
    plain = Parsed(MARKDOWN.render(published("plain").read_text(encoding="utf-8").split("\n---\n", 1)[1]))

    @any_label
    def check(label):
        path = published(label)
        name = file_name(label)
        assert ModelCard.load(path).data.model_name == name
        text = path.read_text(encoding="utf-8").split("\n---\n", 1)[1]
        shown = Parsed(MARKDOWN.render(text))
        assert shown.tags == plain.tags
        assert shown.texts[0].strip() == name
        cells = [text.strip() for tag, text in zip(shown.tags, shown.texts, strict=True) if tag == "td"]
        assert cells.count(label) >= 3  # label, its meaning, its score
        blocks = [each.content for each in MARKDOWN.parse(text) if each.type == "fence" and each.info == "python"]
        literals = [each for block in blocks for each in ast.walk(ast.parse(block)) if isinstance(each, ast.Constant)]
        assert [each.value for each in literals].count(label) >= 2
        assert [each.value for each in literals].count(f"USER/{name}") == 2

    check()


def test_a_label_without_description_is_in_the_code_of_the_card(published, tmp_path):
    path = published("Disease")
    config = json.loads((path.parent / "config.json").read_text(encoding="utf-8"))
    config["glinerko"]["descriptions"] = {"Drug": "약물"}
    (path.parent / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    text = write_card(path.parent).read_text(encoding="utf-8")
    assert 'labels = {"Disease": {}, "Drug": "약물", "Procedure": {}, "Biomarker": {}}' in text
    del config["glinerko"]["descriptions"]
    (path.parent / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    text = write_card(path.parent).read_text(encoding="utf-8")
    assert 'labels = ["Disease", "Drug", "Procedure", "Biomarker"]' in text


@pytest.fixture
def fonts(monkeypatch):
    """Only the font that comes with matplotlib is installed; returns the list of the others, to be filled."""
    manager, installed = font_manager.fontManager, []
    monkeypatch.setattr(manager, "ttflist", [font for font in manager.ttflist if font.name == "DejaVu Sans"])
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: installed)
    page._find_fonts.cache_clear()
    yield installed
    page._find_fonts.cache_clear()


def test_without_a_korean_font_one_line_names_one(fonts, tmp_path):
    plots, told = evaluation_plots(evaluation("질병")[0], [(0.9, 0.5, 0.5)]), []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(save_plots(plots, tmp_path, told.append)) == set(plots)
        assert len(told) == 1
        assert "병질" in told[0]
        assert "fonts-nanum" in told[0]
        save_plots(evaluation_plots(evaluation("Disease")[0], [(0.9, 0.5, 0.5)]), tmp_path, pytest.fail)


def test_a_font_is_used_wherever_it_was_found(fonts, tmp_path):
    glyphs = {"질": "jil", "병": "byeong"}
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0)), pen.lineTo((0, 500)), pen.lineTo((500, 500)), pen.closePath()
    builder = FontBuilder(1000)
    names = [".notdef", *glyphs.values()]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(character): name for character, name in glyphs.items()})
    builder.setupGlyf(dict.fromkeys(names, pen.glyph()))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (600, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Ward Hangul", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "ward.ttf")
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    fonts += [str(tmp_path / "damaged.ttf"), str(tmp_path / "ward.ttf")]
    drawn = {}

    def draw():
        drawn["labels"] = evaluation_plots(evaluation("질병")[0], [(0.9, 0.5, 0.5)])["labels"]()
        return drawn["labels"]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_plots({"labels": draw}, tmp_path, pytest.fail)
    families = [text.get_family() for text in drawn["labels"].findobj(Text) if text.get_text() == "질병"]
    assert families[0] == ["DejaVu Sans", "Ward Hangul"]


def test_a_plot_that_cannot_be_drawn_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    def fail(error):
        raise error

    result, examples, judged, scores = evaluation("질병")
    plots = evaluation_plots(result, [(0.9, 0.5, 0.5)])
    (tmp_path / "labels.png").write_bytes(b"of an earlier evaluation")
    broken = {**plots, "labels": partial(fail, RuntimeError("no glyph\nmore"))}
    monkeypatch.setattr(page, "evaluation_plots", lambda *_: broken)
    told = []
    write_report(tmp_path, result, scores, [(0.9, 0.5, 0.5)], examples, judged, told.append)
    assert [line for line in told if "font" not in line] == [
        f"The plot {tmp_path / 'labels.png'} cannot be drawn: no glyph"
    ]
    assert (tmp_path / "index.html").read_text(encoding="utf-8").count("<svg") == len(plots) - 1
    assert not (tmp_path / "labels.png").exists()
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["model"] == "질병"

    # A mistake of the program is no plot that cannot be drawn, and does not lose the figures either.
    for name in ("report.json", "counts.jsonl", "report.md"):
        (tmp_path / name).unlink()
    broken["labels"] = partial(fail, KeyError("f1"))
    with pytest.raises(KeyError):
        write_report(tmp_path, result, scores, [(0.9, 0.5, 0.5)], examples, judged, told.append)
    assert {"report.json", "counts.jsonl", "report.md"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow(25)
def test_labels_of_any_characters_go_through_training_evaluation_page_and_card(pair, tmp_path, write_rows):
    names = {"Disease": "질병[/급성]", "Drug": "비용($)_합($)", "Procedure": r"$\frac$", "Biomarker": "<b>약|물</b>"}
    rows = [json.loads(line) for line in (SAMPLE / "train.jsonl").read_text(encoding="utf-8").splitlines()[:40]]
    for row in rows:
        row["entities"] = {names[label]: mentions for label, mentions in row["entities"].items()}
        row["entity_descriptions"] = {names[label]: text for label, text in row["entity_descriptions"].items()}
    data, output = write_rows(*rows, name="행[1] $x$.jsonl"), tmp_path / "run [red] $y"

    def run(*command) -> str:
        command = [PYTHON, *map(str, command)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        assert "Glyph" not in done.stderr
        return done.stdout

    models = ["--base_model", pair[0], "--korean_encoder", pair[1], "--output_dir", output]
    files = ["--train_file", data, "--validation_file", data]
    trained = run("scripts/train_gliner2_korean_encoder.py", *models, *files, "--max_train_steps", "1")
    scored = run("scripts/eval.py", "--model", output / "best", "--test_file", data, "--threshold", "0.01")
    run("scripts/push_to_hub.py", output / "best", "--card_only")
    assert sum("fonts-nanum" in line for line in scored.splitlines()) <= 1
    report, readme = output / "report", (output / "best" / "README.md").read_text(encoding="utf-8")
    page, text = (
        Parsed(render((report / name).read_text(encoding="utf-8")))
        for name, render in (("index.html", str), ("report.md", MARKDOWN.render))
    )
    written, figures = Parsed(MARKDOWN.render(readme)), json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert set(figures["string_f1"]["labels"]) == set(names.values())
    for label in names.values():
        for place in (page, text, written):
            assert label in place
        for shown in (trained, scored):
            assert f"    {label} " in shown
    assert (output / "best" / "images" / "labels.png").is_file()
