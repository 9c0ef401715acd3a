"""A tiny starter pair, built once, and rows made on the spot. Nothing here needs a network."""

from __future__ import annotations

import json
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import datasets
import pytest
import torch

from glinerko.corpus.reading import label_schema, load_rows
from glinerko.model.swap import swap_encoder
from glinerko.training.starter import TINY, build_starter_pair

torch.set_flush_denormal(True)  # as the scripts do

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "data" / "sample"
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def _quiet_datasets(tmp_path_factory):
    datasets.disable_progress_bars()
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def sample_rows():
    return load_rows(str(SAMPLE / "train.jsonl"))[0]


@pytest.fixture(scope="session")
def schema(sample_rows):
    return label_schema(sample_rows)


@pytest.fixture(scope="session")
def pair(tmp_path_factory, sample_rows):
    """(base model, Korean encoder) as directories; not to be changed."""
    return build_starter_pair(sample_rows, tmp_path_factory.mktemp("starter"), TINY)


@pytest.fixture
def model(pair, schema):
    """A freshly swapped tiny model."""
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
