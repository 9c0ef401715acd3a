"""The plan of a dry run, and the run that follows."""

from __future__ import annotations

import json

import pytest
from conftest import PYTHON, SAMPLE
from test_scripts import LAUNCH, TRAIN, flags, one_line_error, run  # noqa: F401 (a fixture)

from glinerko.sharing.tables import plain_rows, plan_table
from glinerko.training.checkpoints import list_checkpoints
from glinerko.training.trial import RunPlan

PLAN = RunPlan(
    device="CPU", processes=2, precision="bf16", attention="eager", windows_per_batch=4, batches_per_step=3,
    steps_per_epoch=30, epochs=10, seconds_per_step=2.0, seconds_per_evaluation=50.0, seconds_per_checkpoint=10.0,
    memory_gb=12.3, model_gb=0.8, checkpoint_gb=2.4, disk_gb=8.8,
)  # fmt: skip


def test_a_plan_adds_up_steps_evaluation_and_checkpoints():
    assert PLAN.minutes_per_epoch == pytest.approx((30 * 2 + 50 + 10) / 60)
    assert PLAN.minutes == pytest.approx(20)
    assert PLAN.price is None
    assert RunPlan(**{**vars(PLAN), "price_per_hour": 3.0}).price == pytest.approx(1.0)


@pytest.mark.parametrize(("price", "shown"), [(None, False), (3.0, True)])
def test_the_table_of_a_plan_has_the_price_if_there_is_one(price, shown):
    rows = dict(plain_rows(plan_table(RunPlan(**{**vars(PLAN), "price_per_hour": price})))[1:])
    assert rows["a step"] == "3 × 4 windows × 2 processes"
    assert rows["10 epochs"].startswith("0.3 hours (20 minutes)")
    assert rows.get("price") == ("1.00 at 3 an hour" if shown else None)


@pytest.mark.slow(40)
def test_the_plan_of_a_dry_run_is_that_of_the_run(flags, tmp_path):  # noqa: F811
    """Time is compared between two processes, so other work on the machine may spoil one of three attempts."""
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / "config.json").write_text("{}")  # an earlier run
    more = ["--max_train_samples", "600", "--num_train_epochs", "4", "--checkpoints_total_limit", "9"]
    command = [*LAUNCH, "accelerate_configs/cpu.yaml", TRAIN, *flags, *more]
    ratios = []
    for attempt in range(3):
        planned = run(*command, "--dry_run", "--price_per_hour", "6")
        assert planned.returncode == 0, planned.stderr
        assert "the same command without --dry_run" in planned.stdout
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["best"]
        plan = json.loads((tmp_path / "run.dry-run" / "plan.json").read_text())
        assert not (tmp_path / "run.dry-run" / "best").exists()
        assert plan["price"] == pytest.approx(plan["minutes"] / 10)
        output = ["--output_dir", tmp_path / f"whole-{attempt}"]
        done = run(*command, *output)
        assert done.returncode == 0, done.stderr
        written = [path.stat().st_mtime for path in list_checkpoints(tmp_path / f"whole-{attempt}")]
        assert len(written) == plan["epochs"] == 4
        minutes = (max(written) - min(written)) / 60 / 3
        size = sum(
            f.stat().st_size for f in list_checkpoints(tmp_path / f"whole-{attempt}")[0].rglob("*") if f.is_file()
        )
        assert plan["checkpoint_gb"] == pytest.approx(size / 1e9, rel=0.3)
        ratios.append(plan["minutes_per_epoch"] / minutes)
        if 0.7 < ratios[-1] < 1.3:
            return
    pytest.fail(f"minutes planned against minutes taken: {ratios}")


@pytest.mark.slow(8)
def test_a_dry_run_fails_where_the_run_would(flags, tmp_path):  # noqa: F811
    bad = tmp_path / "bad.jsonl"
    bad.write_text((SAMPLE / "train.jsonl").read_text(encoding="utf-8").splitlines()[0] + "\n{}\n", encoding="utf-8")
    one_line_error(run(PYTHON, TRAIN, *flags, "--train_file", bad, "--dry_run"), "bad.jsonl, line 2")
