"""What more documents would bring: the curve, its interval, and the mode of cross_validate.py that draws it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import PYTHON, SAMPLE
from hypothesis import given, settings
from hypothesis import strategies as st
from test_scripts import one_line_error, run

from glinerko.scoring.learning_curve import curve_points, f1_at, fit_power_law, forecast

SIZES = [100, 200, 400, 800, 1600]


@given(
    e=st.floats(0, 0.3, allow_subnormal=False),
    b=st.floats(0.5, 3, allow_subnormal=False),
    c=st.floats(0.2, 1, allow_subnormal=False),
)
@settings(max_examples=60, deadline=None)
def test_a_power_law_is_found_again(e, b, c):
    truth = np.array([e, b, c])
    f1 = [f1_at(truth, size) for size in SIZES]
    if min(f1) > 0:
        found = fit_power_law(SIZES, f1)
        assert f1_at(found, 2000) == pytest.approx(f1_at(truth, 2000), abs=0.01)


@pytest.mark.parametrize("f1", [[0.5, 0.5, 0.5, 0.5], [0.6, 0.5, 0.55, 0.4], [0.0, 0.0], [1.0, 1.0, 1.0]])
def test_any_scores_have_a_curve(f1):
    found = fit_power_law(SIZES[: len(f1)], f1)
    assert all(0 <= f1_at(found, size) + 1e-6 <= 1.1 for size in SIZES)
    assert f1_at(found, 3200) >= f1_at(found, 1600) - 1e-9  # more documents are never said to harm


def test_one_size_is_no_curve():
    with pytest.raises(ValueError, match="two sizes"):
        fit_power_law([100], [0.5])


def counts_with(f1: float, documents: int, seed: int) -> np.ndarray:
    """``[documents, 3]`` whose F1 is about ``f1``: 10 gold and 10 predictions a document."""
    hits = np.random.default_rng(seed).binomial(10, f1, documents)
    return np.stack([hits, np.full(documents, 10), np.full(documents, 10)], axis=1)


def test_the_interval_of_a_forecast_has_the_truth_and_shrinks_with_more_documents():
    truth = np.array([0.1, 2.0, 0.3])
    widths = []
    for documents in (20, 300):
        counts = [[counts_with(f1_at(truth, size), documents, seed) for seed in range(5)] for size in SIZES]
        found = forecast(SIZES, counts, 2000)
        assert found.low <= f1_at(truth, 2000) <= found.high
        widths.append(found.high - found.low)
        gain = forecast(SIZES, counts, 2000, since=1600)
        assert gain.f1 == pytest.approx(
            found.f1 - f1_at(fit_power_law(SIZES, [p.f1 for p in curve_points(SIZES, counts)]), 1600)
        )
        assert gain.low <= f1_at(truth, 2000) - f1_at(truth, 1600) <= gain.high
    assert widths[1] < widths[0]


@pytest.mark.slow(60)
def test_cross_validation_of_shares_tells_what_more_documents_bring(pair, write_rows, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"- train_gliner2_korean_encoder: {{train_file: '{{train}}', base_model: '{pair[0]}', korean_encoder: '{pair[1]}',\n"
        "    num_train_epochs: 1, head_learning_rate: 5.0e-3, checkpointing_steps: 'no'}\n"
    )
    lines = (SAMPLE / "train.jsonl").read_text().splitlines()[:48]
    file = write_rows(*lines, name="train.jsonl")
    command = [
        PYTHON,
        "scripts/cross_validate.py",
        recipe,
        "--train_file",
        file,
        "--folds",
        2,
        "--output_dir",
        tmp_path,
    ]
    result = run(*command, "--shares", "0.25", "0.5", "1", "--more_documents", 10)
    assert result.returncode == 0, result.stderr
    curve = json.loads((tmp_path / "default-curve.json").read_text())
    assert [point["documents"] for point in curve["points"]] == [6, 12, 24]
    assert curve["forecast"]["more_documents"] == 10
    assert curve["check"]["documents"] == 24
    assert "10 more documents like these: about" in result.stdout
    assert "the curve predicts" in result.stdout
    small, large = (
        {json.loads(line)["id"] for line in (tmp_path / "fold-0" / share / "train.jsonl").open()}
        for share in ("share-0.25", "share-0.5")
    )
    whole = {json.loads(line)["id"] for line in (tmp_path / "fold-0" / "train.jsonl").open()}
    assert small < large < whole
    assert run(*command, "--shares", "0.5", "1").stdout.count("$ ") == 0  # nothing runs twice
    one_line_error(run(*command, "--shares", "1.5"), "--shares 1.5: must be above 0 and at most 1")
