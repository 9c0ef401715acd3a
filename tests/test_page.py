"""The page of an evaluation, as a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from glinerko.corpus.report import DataReport
from glinerko.corpus.rows import Example, Mention, Span
from glinerko.corpus.words import KoreanWordSplitter
from glinerko.scoring.analysis import count_errors, judge_spans
from glinerko.sharing.page import evaluation_plots, render_page, save_plots

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(tmp_path):
    text = "당뇨병으로 <b>인슐린</b>을 투여"
    gold = (Mention("Disease", "당뇨병", ((0, 3),)), Mention("Drug", "인슐린", ((9, 12),)))
    examples = [Example("first", text, ("Disease", "Drug"), gold), Example("second", "정상", ("Disease", "Drug"), ())]
    found = [[Span(0, 5, "Disease", 0.9), Span(9, 12, "Drug", 0.8)], []]
    outcomes = [dict.fromkeys(examples[0].gold_spans, "target"), {}]
    judged = judge_spans(examples, outcomes, found, ("Disease", "Drug"), particles=KoreanWordSplitter().particles)
    score = {"f1": 0.5, "precision": 0.5, "recall": 0.5}
    data = DataReport("t", documents=2, words=4).to_dict()
    targets = {"PASS": {"f1": 0.5, "f1_interval": (0.1, 0.9), "target": 0.6, "verdict": "MISS"}}
    result = {"model": "m", "documents": 2, "test_file": "t", "metric": "string_f1", "threshold": 0.5, "threshold_source": "as requested",
              "span_f1": {"overall": score, "labels": {}}, "modes": {}, "ceiling": {}, "gate": "count gate", "gates": 1, "closed_gates": 0, "data": data, "targets": targets, "sweep": {0.5: score},
              "average_precision": 0.25, "errors": count_errors(judged)}  # fmt: skip
    plots = save_plots(evaluation_plots(result, [(0.9, 0.5, 0.5)]), tmp_path)
    path = tmp_path / "index.html"
    path.write_text(render_page(result, plots, examples, judged), encoding="utf-8")
    return path


def test_the_page_stands_alone_and_escapes_the_text(page):
    content = page.read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="https?:', content)
    assert "<b>인슐린" not in content
    assert "&lt;b&gt;" in content
    assert content.count("<svg") == 4
    assert '<span class="gold predicted" title="predicted 0.90, Disease: wrong boundary: particle attached' in content
    assert all(
        (page.parent / f"{name}.png").stat().st_size for name in ("precision_recall", "threshold", "labels", "errors")
    )


def test_only_a_verdict_has_its_colour(page):
    cells = re.findall(r"<td([^>]*)>(PASS|MISS)</td>", page.read_text(encoding="utf-8"))
    assert cells == [("", "PASS"), (' class="MISS"', "MISS")]  # a label of that name, and the verdict on it


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("filter_by", "shown"),
    [("", ["first", "second"]), ("wrong boundary: particle attached", ["first"]), ("missed", [])],
)
def test_a_browser_filters_documents_by_class(page, tmp_path, filter_by, shown):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"]  # fmt: skip
    address = f"{page.as_uri()}#{filter_by}"
    result = subprocess.run([BROWSER, *flags, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    articles = re.findall(r"<article([^>]*)>\s*<h3>(\w+)</h3>", result.stdout)
    assert [name for attributes, name in articles if "hidden" not in attributes] == shown, result.stderr
    assert f"{len(shown)} documents" in result.stdout
