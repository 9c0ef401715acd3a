"""A tiny starter pair, built once, and rows made on the spot. Nothing here needs a network.

Every process has one thread: on models this small, more threads only take the cores from the tests that run beside.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import warm

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
# torch, and all that imports it, is imported in the fixtures: after these settings, and not by the process of
# pytest-xdist that only shares out the tests.

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
SHARED = ROOT.parent / "shared" / "data"

if sys.platform != "linux":
    os.environ["WARM_PYTHON"] = sys.executable
elif "WARM_PYTHON" not in os.environ:  # the workers of pytest-xdist inherit it
    _directory = TemporaryDirectory(prefix="warm")
    os.environ["WARM_PYTHON"], _server = warm.start_server(Path(_directory.name))
PYTHON = os.environ["WARM_PYTHON"]
"""``sys.executable`` without the seconds of imports. Tests use both, so that each script is also run as users do."""


def pytest_collection_modifyitems(items):
    """The slowest tests first, so that no worker is left alone with one of them at the end."""

    def seconds(item) -> int:
        mark = item.get_closest_marker("slow")
        return (mark.args or (30,))[0] if mark else 0

    items.sort(key=seconds, reverse=True)


def split_and_align(rows, processor, schema, *, max_width, **limits):
    """The rows with their words, windows and the outcome of each gold span."""
    from glinerko.corpus.windows import align_gold, split_into_windows

    return align_gold(split_into_windows(rows, processor, schema, **limits), max_width)


@pytest.fixture(scope="session", autouse=True)
def _libraries_as_in_the_scripts(tmp_path_factory):
    import datasets
    import torch

    torch.set_flush_denormal(True)
    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def sample_rows():
    from glinerko.corpus.reading import load_rows

    return load_rows(str(SAMPLE / "train.jsonl"))[0]


@pytest.fixture(scope="session")
def schema(sample_rows):
    from glinerko.corpus.reading import label_schema

    return label_schema(sample_rows)


@pytest.fixture(scope="session")
def pair(tmp_path_factory, sample_rows):
    """(base model, Korean encoder) as directories; not to be changed."""
    from glinerko.training.starter import TINY, build_starter_pair

    return build_starter_pair(sample_rows, tmp_path_factory.mktemp("starter"), TINY)


@pytest.fixture(scope="session")
def bases(pair, tmp_path_factory, sample_rows):
    """The base model as a directory, by architecture; not to be changed."""
    import torch

    from glinerko.training.starter import TINY, build_base

    directory = tmp_path_factory.mktemp("boundary") / "base"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(42)
        return {"span": pair[0], "boundary": build_base(sample_rows, directory, TINY, architecture="boundary")}


def swap_and_spread(bases, pair, architecture, schema):
    """A freshly swapped tiny model whose scores spread over (0, 1), with the gate open."""
    import torch

    from glinerko.model.swap import swap_encoder

    model, _ = swap_encoder(bases[architecture], pair[1], schema=schema)
    if architecture == "span":
        with torch.no_grad():
            model.count_pred[-1].bias[1] += 100.0
            for parameter in model.span_rep.parameters():
                parameter.mul_(3.0)
    return model


def shut_gate(model):
    """Make a model keep everything back."""
    from dataclasses import replace

    import torch

    with torch.no_grad():
        if model.architecture == "span":
            model.count_pred[-1].bias[0] += 1000.0
        else:
            model.boundary_settings = replace(model.boundary_settings, abstention_threshold=0.5)
            model.boundary_head.null_projection.bias += 1000.0


@pytest.fixture
def model(pair, schema):
    """A freshly swapped tiny model."""
    from glinerko.model.swap import swap_encoder

    return swap_encoder(*pair, schema=schema)[0]


@pytest.fixture
def write_rows(tmp_path):
    """Write rows (or raw lines) to a JSON-lines file and return its path."""

    def write(*rows, name: str = "rows.jsonl") -> str:
        path = tmp_path / name
        lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(scope="session")
def real_corpus() -> str:
    path = SHARED / "gliner2_train_v2" / "train.jsonl"
    if not path.is_file():
        pytest.skip(f"the real corpus is not at {path}")
    return str(path)
