"""Publishing to a Hub that plays every fault, with the real client over real HTTP."""

from __future__ import annotations

import json
import shutil
import time

import pytest
import torch
from conftest import split_and_align
from hub_server import GUEST, READ, WRITE, Fault, serve
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from glinerko.common import LoadError, PublishError
from glinerko.corpus.reading import write_rows
from glinerko.corpus.rows import Example
from glinerko.model.extractor import load_extractor
from glinerko.model.prediction import predict_spans
from glinerko.model.swap import swap_encoder
from glinerko.scoring.metrics import score_strings
from glinerko.sharing.publishing import _find_fault, prepare_repository, publish, published_files, verify_saved

NAME = "ada/korean-ner"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with serve() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", WRITE)
        yield hub


@pytest.fixture(scope="session")
def saved(pair, schema, sample_rows, tmp_path_factory):
    return save_run(pair, schema, sample_rows, tmp_path_factory.mktemp("run"))


def save_run(pair, schema, sample_rows, run):
    """A model as the training script leaves it: ``(directory, validation file)``."""
    model, _ = swap_encoder(*pair, schema=schema)
    rows = sample_rows.select(range(8))
    limits = {"max_length": 256, "window_overlap": 16}
    annotated = split_and_align(rows, model.processor, schema, max_width=model.max_width, **limits)
    found = predict_spans(model, annotated, schema)
    threshold = sorted(span.score for spans in found.spans for span in spans)[-40]
    f1 = score_strings([Example.from_row(row) for row in rows], found.at_threshold(threshold), schema.labels).overall.f1
    claim = {"epoch": 1, "metric": "string_f1", "f1": f1, "precision": "no"}
    claim["reference_scores"] = model.train().reference_scores()
    model.configure(threshold=threshold, window=limits, validation=claim)
    model.save_pretrained(run / "best")
    (run / "best" / "README.md").write_text("---\nlanguage: ko\n---\n# A model\n")
    write_rows(rows, run / "validation.jsonl")
    return run / "best", run / "validation.jsonl"


@pytest.fixture
def directory(saved, tmp_path):
    """A copy to be changed, with what must stay at home beside the model."""
    copy = shutil.copytree(saved[0], tmp_path / "best")
    for name in ("validation.jsonl", "optimizer.bin", "notes/patients.txt"):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text("환자")
    return copy


def ready(hub, directory):
    prepare_repository(NAME)
    return hub.repositories[NAME]


def test_the_round_trip_gives_the_same_model_and_a_second_push_no_commit(hub, directory, sample_rows, schema):
    repository = ready(hub, directory)
    commit = publish(directory, NAME)
    assert repository.refs["main"] == commit.oid
    assert len(repository.commits) == 2  # the first one makes the repository
    files = repository.commits[commit.oid]
    assert set(files) - {".gitattributes"} == {path.as_posix() for path in published_files(directory)}
    assert not any("환자".encode() in content for path, content in files.items() if path.endswith((".txt", ".jsonl")))
    assert publish(directory, NAME).oid == commit.oid
    assert len(repository.commits) == 2

    ours, theirs = load_extractor(directory), load_extractor(NAME)
    annotated = split_and_align(
        sample_rows.select(range(8)), ours.processor, schema, max_width=12, **ours.window_limits
    )
    local, remote = (predict_spans(model, annotated, schema).spans for model in (ours, theirs))
    assert local == remote
    assert sum(map(len, local)) > 0
    found = predict_spans(ours, annotated, schema).at_threshold(ours.threshold)
    text = next(row["text"] for row, spans in zip(annotated, found, strict=True) if spans)
    asked = ours.extract_entities(text, schema.descriptions, threshold=ours.threshold)
    assert theirs.extract_entities(text) == asked
    assert any(asked["entities"].values())
    assert theirs.batch_extract_entities([text]) == [asked]


def test_a_boundary_model_makes_the_round_trip(hub, bases, pair, schema, sample_rows, tmp_path):
    best, validation = save_run((bases["boundary"], pair[1]), schema, sample_rows, tmp_path)
    prepare_repository(NAME)
    verify_saved(best, validation)
    publish(best, NAME)
    ours, theirs = load_extractor(best), load_extractor(NAME)
    assert theirs.architecture == "boundary"
    assert theirs.reference_scores() == ours.reference_scores()
    texts = sample_rows["text"][:8]
    assert list(theirs.stream_entities(texts)) == list(ours.stream_entities(texts))


def test_what_an_earlier_model_left_is_removed_and_the_rest_stays(hub, directory):
    repository = ready(hub, directory)
    (directory / "user_dictionary.tsv").write_text("당뇨병\tNNP\t0\n")
    publish(directory, NAME)
    files = repository.commits[repository.refs["main"]]
    repository.commit("main", {**files, "LICENSE": b"of the owner"})
    (directory / "user_dictionary.tsv").unlink()
    publish(directory, NAME)
    files = repository.commits[repository.refs["main"]]
    assert "user_dictionary.tsv" not in files
    assert files["LICENSE"] == b"of the owner"


def test_a_branch_and_a_pull_request_leave_main_alone(hub, directory):
    repository = ready(hub, directory)
    before = repository.refs["main"]
    publish(directory, NAME, revision="v2")
    assert "model.safetensors" in repository.commits[repository.refs["v2"]]
    commit = publish(directory, NAME, create_pr=True)
    assert commit.pr_url.startswith(hub.url)
    assert repository.refs["main"] == before
    assert load_extractor(NAME, revision="v2").threshold == load_extractor(directory).threshold
    with pytest.raises(LoadError, match="no revision 'v3'"):
        load_extractor(NAME, revision="v3")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("POST", "/commit/", 500),
        Fault("POST", "/commit/", 429, {"Retry-After": "1"}),
        Fault("POST", "/preupload/", 429, {"Retry-After": "1"}),
        Fault("POST", "/objects/batch", 503),
        Fault("PUT", "/lfs/", 500),
        Fault("PUT", "/lfs/", cut_after=10_000),
        Fault("POST", "/commit/", cut_after=100),
    ],
    ids=lambda fault: f"{fault.method} {fault.pattern} {fault.status or 'cut'}",
)
def test_a_passing_fault_ends_in_success(hub, directory, fault, monkeypatch):
    repository = ready(hub, directory)
    hub.faults.append(fault)
    told = []
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    commit = publish(directory, NAME, tell=told.append)
    assert fault.times == 0
    assert repository.refs["main"] == commit.oid
    assert len(repository.commits) == 2
    assert bool(told) == (fault.pattern == "/commit/")
    load_extractor(NAME)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault("POST", "/commit/", 500, times=99), "answered 500.*run it again later"),
        (Fault("POST", "/commit/", 409, times=99), "refused it .*409"),
        (Fault("POST", "/commit/", 403, times=99), "no permission"),
        (Fault("PUT", "/lfs/", cut_after=10_000, times=99), "connection to the Hub failed.*not sent again"),
        (Fault("POST", "/preupload/", 401, times=99), "hf auth login"),
    ],
    ids=lambda value: f"{value.method} {value.pattern} {value.status or 'cut'}" if isinstance(value, Fault) else "",
)
def test_a_lasting_fault_is_one_line_and_nothing_is_half_visible(hub, directory, fault, message, monkeypatch):
    repository = ready(hub, directory)
    before = repository.refs["main"]
    hub.faults.append(fault)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(PublishError, match=f"{NAME}: .*{message}") as raised:
        publish(directory, NAME)
    assert "\n" not in str(raised.value)
    assert repository.refs["main"] == before
    hub.faults.clear()
    publish(directory, NAME)
    assert hub.count("PUT", "/lfs/") >= 1


def test_an_upload_that_was_broken_off_is_not_sent_again(hub, directory, monkeypatch):
    ready(hub, directory)
    hub.faults.append(Fault("POST", "/commit/", 403))
    with pytest.raises(PublishError):
        publish(directory, NAME)
    sent = hub.count("PUT", "/lfs/")
    publish(directory, NAME)
    assert hub.count("PUT", "/lfs/") == sent == 1


@pytest.mark.slow(7)
def test_a_slow_link_is_waited_for(hub, directory):
    ready(hub, directory)
    hub.bytes_per_second = 400_000
    publish(directory, NAME)


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        (READ, NAME, "no permission"),
        (GUEST, NAME, "no permission"),
        ("hf_unknown", NAME, "no valid token"),
        (None, NAME, "no valid token"),
        (WRITE, "ada/a/b", "not the id of a repository"),
        (WRITE, "grace/model", "no permission"),
    ],
)
def test_no_access_is_known_before_the_first_step(hub, monkeypatch, token, name, message):
    if token is None:
        monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(PublishError, match=message):
        prepare_repository(name, token=token)
    assert not hub.repositories


def test_a_hub_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PublishError, match="connection to the Hub failed"):
        prepare_repository(NAME, token=WRITE)


def test_a_private_repository_needs_a_token_to_load(hub, directory, tmp_path):
    prepare_repository("korean-ner", private=True)
    publish(directory, NAME)
    assert hub.repositories[NAME].private
    assert load_extractor(NAME, token=WRITE, cache_dir=str(tmp_path / "mine")).max_width == 12
    with pytest.raises(LoadError, match="nor a repository you may read"):
        load_extractor(NAME, token=GUEST, cache_dir=str(tmp_path / "theirs"))
    hub.faults.append(Fault("GET", "/api/models/", 403, {"X-Error-Code": "GatedRepo"}))
    with pytest.raises(LoadError, match="access is gated"):
        load_extractor(NAME, cache_dir=str(tmp_path / "theirs"))
    offline = load_extractor(NAME, cache_dir=str(tmp_path / "mine"), local_files_only=True, map_location="cpu")
    assert offline.device.type == "cpu"
    with pytest.raises(LoadError, match="not on this machine"):
        load_extractor(NAME, cache_dir=str(tmp_path / "nowhere"), local_files_only=True)


def _set(**entries):
    def change(directory):
        config = json.loads((directory / "config.json").read_text())
        config["glinerko"].update(entries)
        (directory / "config.json").write_text(json.dumps(config))

    return change


def _shift_weights(directory):
    weights = load_file(directory / "model.safetensors")
    weights["encoder.embeddings.word_embeddings.weight"] += torch.linspace(-1, 1, 32)
    save_file(weights, directory / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda directory: (directory / "model.safetensors").write_bytes(b"half"), "cannot be loaded"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "cannot be loaded"),
        (_shift_weights, "scores differ by"),
        (_set(word_splitter="whitespace"), "splits words"),
        (_set(threshold=0.0), "string_f1 on"),
        (_set(validation=None), "only a model that was trained"),
    ],
)
def test_a_model_that_is_not_what_was_saved_is_never_published(saved, directory, change, message):
    assert _find_fault(directory, saved[1], 16) is None
    change(directory)
    assert message in _find_fault(directory, saved[1], 16)


@pytest.mark.slow(18)
def test_the_trial_runs_in_a_process_of_its_own(saved, directory):
    verify_saved(directory, saved[1])
    _set(word_splitter="char")(directory)
    with pytest.raises(PublishError, match="not published, it splits words"):
        verify_saved(directory, saved[1])


def test_adapters_on_a_model_of_this_machine_are_not_published(pair, saved, directory):
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(pair[0])}))
    with pytest.raises(PublishError, match="on this machine alone"):
        verify_saved(directory, saved[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda files: files.pop("model.safetensors"), "no model.safetensors"),
        (lambda files: files.update({"pytorch_model.bin": files.pop("model.safetensors")}), "another format"),
        (lambda files: files.pop("config.json"), "no config.json"),
        (lambda files: files.update({"config.json": b'{"model_type": "bert"}'}), "not a GLiNER2 model"),
        (lambda files: files.update({"config.json": b'{"auto_map": {"AutoModel": "evil.py"}}'}), "code of its own"),
        (lambda files: files.update({"config.json": files["config.json"].replace(b'"format": 1', b'"format": 2')}), "upgrade glinerko"),
    ],
)  # fmt: skip
def test_a_repository_that_is_no_model_of_ours_is_one_line(hub, directory, change, message):
    repository = ready(hub, directory)
    publish(directory, NAME)
    files = dict(repository.commits[repository.refs["main"]])
    change(files)
    repository.commit("main", files)
    with pytest.raises(LoadError, match=message) as raised:
        load_extractor(NAME)
    assert "\n" not in str(raised.value)
