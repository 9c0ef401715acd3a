"""The page of an evaluation, as a browser shows it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from glinerko.analysis import count_errors, judge_spans
from glinerko.data import Example, Mention, Span
from glinerko.page import render_page
from glinerko.plots import error_plot, label_plot, precision_recall_plot, save_plots, threshold_plot

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def page(tmp_path):
    text = "당뇨병으로 <b>인슐린</b>을 투여"
    gold = (Mention("Disease", "당뇨병", ((0, 3),)), Mention("Drug", "인슐린", ((9, 12),)))
    examples = [Example("first", text, ("Disease", "Drug"), gold), Example("second", "정상", ("Disease", "Drug"), ())]
    found = [[Span(0, 5, "Disease", 0.9), Span(9, 12, "Drug", 0.8)], []]
    outcomes = [dict.fromkeys(examples[0].gold_spans, "target"), {}]
    judged = judge_spans(examples, outcomes, found, ("Disease", "Drug"))
    errors = count_errors(judged)
    scores = {"overall": {"f1": 0.5, "f1_interval": (0.1, 0.9), "target": 0.6, "verdict": "MISS"}}
    plots = save_plots(
        {
            "precision_recall": precision_recall_plot([(0.9, 0.5, 0.5)], 0.25),
            "threshold": threshold_plot({0.5: {"f1": 0.5, "precision": 0.5, "recall": 0.5}}, 0.5),
            "labels": label_plot(scores),
            "errors": error_plot({side: groups["all"] for side, groups in errors.items()}),
        },
        tmp_path,
    )
    result = {"model": "m", "documents": 2, "test_file": "t", "metric": "string_f1", "threshold": 0.5, "threshold_source": "as asked",
              "targets": scores, "errors": errors}  # fmt: skip
    rows = {"strict spans": {"precision": 0.5, "recall": 0.5, "f1": 0.5}}
    path = tmp_path / "index.html"
    path.write_text(render_page(result, rows, plots, examples, judged), encoding="utf-8")
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
