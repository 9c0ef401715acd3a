"""The page and the service of ``scripts/demo.py``, as a browser and programs see them, and the Space it writes."""

from __future__ import annotations

import fnmatch
import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import yaml
from conftest import PYTHON, ROOT
from test_scripts import one_line_error, run

if importlib.util.find_spec("gradio") is None:
    pytest.skip("gradio is not installed: pip install gradio", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore::Warning:gradio")  # of its own use of pandas
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECRET = "비밀환자XQ17"
TEXT = "당뇨병 환자에게 인슐린을 투여함"
HOSTILE = """<img src=x onerror="document.title='changed'">"""
CARD = f"""---
language: ko
---

# m&ms \\<b\\>

![plot](images/plot.png) It is described <script>document.title = 'changed'</script> {HOSTILE} here.
<img src="http://127.0.0.1:9/elsewhere.png">
"""
TOAST = "document.querySelector('[data-testid=toast-body]')?.innerText"

INSTALL = ["--install_from", "git+https://example.org/glinerko"]


@pytest.fixture(scope="session")
def saved(pair, schema, tmp_path_factory):
    """A tiny model that finds everything, and its card."""
    from glinerko.model.swap import swap_encoder

    directory = tmp_path_factory.mktemp("saved")
    model, _ = swap_encoder(*pair, schema=schema)
    model.configure(threshold=0.0)
    model.save_pretrained(directory)
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def server(saved, tmp_path_factory):
    """The running script: its address, and what it writes."""
    output, temporary = tmp_path_factory.mktemp("output"), tmp_path_factory.mktemp("temporary")
    limits = ["--max_characters", "2000", "--max_texts", "4", "--max_queue", "8"]
    command = [sys.executable, "scripts/demo.py", "--model", saved, "--port", "0", *limits]
    with (output / "stdout").open("w") as stdout, (output / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [*map(str, command)], cwd=ROOT, env={**os.environ, "TMPDIR": str(temporary)}, stdout=stdout, stderr=stderr
        )
    try:
        while not (address := re.search(r"http://\S+", (output / "stdout").read_text())):
            assert process.poll() is None, (output / "stderr").read_text()
            time.sleep(0.1)
        yield SimpleNamespace(address=address[0], output=output, temporary=temporary)
        process.send_signal(signal.SIGINT)  # Ctrl-C
        assert process.wait(20) == 0
        assert "Traceback" not in (output / "stderr").read_text()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def client(server):
    return make_client(server)


def make_client(server):
    from gradio_client import Client

    return Client(server.address, verbose=False, analytics_enabled=False, download_files=False)


def get(address: str, data: bytes | None = None) -> tuple[int, str]:
    """The status and the text of an answer, to a POST if there are ``data``."""
    request = Request(address, data, {"Content-Type": "application/json"})
    try:
        with urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def entities_of(model, text: str, *arguments, **options) -> list[dict]:
    (spans,) = model.stream_entities([text], *arguments, **options)
    return [
        {"start": s.start, "end": s.end, "label": s.label, "text": text[s.start : s.end], "score": round(s.score, 4)}
        for s in spans
    ]


@pytest.fixture(scope="session")
def reference(saved):
    """The model as the server loads it."""
    from glinerko.model.attention import read_faster
    from glinerko.model.extractor import load_extractor

    model = load_extractor(saved)
    read_faster(model)
    return model


class Browser:
    """Chromium without a window, driven by its own protocol."""

    def __init__(self, socket):
        self.socket, self.numbers = socket, itertools.count()
        self.requested, self.blocked = [], []

    def call(self, method: str, **parameters) -> dict:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv(timeout=60))).get("id") != number:
            if message["method"] == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message["method"] == "Network.loadingFailed":
                self.blocked.append(message["params"].get("blockedReason"))
        assert "error" not in message, message
        return message["result"]

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, expression: str):
        return wait_for(lambda: self.evaluate(expression))

    def open(self, address: str) -> None:
        self.call("Network.enable")
        self.call("Page.navigate", url=address)
        self.wait("document.querySelector('#extract') && document.querySelector('#spans [role=grid]') && 1")

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({selector!r}).click()")

    def type(self, selector: str, text: str, clicks: int = 1) -> None:
        """Replace the text of a box, or with two clicks that of a cell."""
        element, focused = f"document.querySelector({selector!r})", "document.activeElement"

        def is_focused() -> bool:  # the page may still move while it is built
            x, y = self.evaluate(f"(({{x, y}}) => [x + 9, y + 9])({element}.getBoundingClientRect())")
            for count, kind in itertools.product(range(1, clicks + 1), ("mousePressed", "mouseReleased")):
                self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=count, x=x, y=y)
            time.sleep(0.2)
            return self.evaluate(f"{element}.contains({focused}) && {focused}.matches('input, textarea')")

        wait_for(is_focused)
        self.evaluate(f"{focused}.select()")
        self.call("Input.insertText", text=text)
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", key="Enter", code="Enter", windowsVirtualKeyCode=13)
        shown = f"({element}.value ?? {element}.innerText).startsWith({json.dumps(text)})"
        self.wait(f"{shown} && !{element}.querySelector('textarea')")


def wait_for(condition):
    """The first true value of ``condition``."""
    end = time.monotonic() + 60
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


@pytest.fixture
def browser(tmp_path):
    if BROWSER is None:
        pytest.skip("no Chromium on this machine")
    from websockets.sync.client import connect  # gradio needs it too

    profile = tmp_path / "profile"
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0",
             "--window-size=1200,1000", f"--user-data-dir={profile}"]  # fmt: skip
    process = subprocess.Popen([BROWSER, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = profile / "DevToolsActivePort"
        wait_for(lambda: port.is_file() and "\n" in port.read_text())
        targets = json.loads(get(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list")[1])
        page = next(target for target in targets if target["type"] == "page")
        with connect(page["webSocketDebuggerUrl"], max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow(20)
def test_a_browser_marks_the_spans_of_a_text_and_saves_them(server, browser, reference, tmp_path):
    browser.open(server.address)
    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.type("#text textarea", TEXT)
    browser.click("#extract")
    browser.wait("document.querySelectorAll('#marked .highlighted').length")
    found = entities_of(reference, TEXT)
    marks = browser.evaluate("[...document.querySelectorAll('#marked .highlighted')].map((mark) => mark.innerText)")
    titles = {f"{each['text']} {each['label']} {each['score']:.2f}" for each in found}
    assert {" ".join(mark.split()) for mark in marks} <= titles
    cells = browser.wait(
        "[...document.querySelectorAll('#spans [role=gridcell]')].map((cell) => cell.innerText.trim())"
    )
    assert cells[:4] == [str(found[0]["start"]), str(found[0]["end"]), found[0]["label"], found[0]["text"]]
    browser.click("#download")
    wait_for((tmp_path / "entities.json").is_file)
    assert json.loads((tmp_path / "entities.json").read_text("utf-8")) == {"text": TEXT, "entities": found}
    assert all(url.startswith((server.address, "data:", "blob:")) for url in browser.requested), browser.requested
    assert len(browser.requested) > 10


@pytest.mark.slow(20)
def test_names_and_labels_are_shown_as_they_are(server, browser):
    """Those of the card, of the model and of a label; and nothing that the card names is loaded from elsewhere."""
    browser.open(server.address)
    assert browser.evaluate("document.title") == "m&ms <b>"
    assert browser.wait("document.querySelector('h1').innerText") == "m&ms <b>"
    browser.click("#card button")
    assert "It is described" in browser.wait("document.querySelector('#card .prose')?.innerText")
    wait_for(lambda: browser.evaluate("1") and browser.blocked)
    assert browser.blocked == ["csp"]  # the image from elsewhere
    assert not any(url.endswith("plot.png") for url in browser.requested)
    browser.type("#new_labels [data-testid=cell-0-0]", HOSTILE, clicks=2)
    browser.type("#text textarea", TEXT)
    browser.evaluate("document.querySelectorAll('#labels input:checked').forEach((box) => box.click())")
    browser.click("#extract")
    assert browser.wait("document.querySelector('#marked .highlighted .label')?.innerText").startswith(HOSTILE)
    browser.type("#new_labels [data-testid=cell-1-0]", f"[P]{HOSTILE}", clicks=2)
    browser.click("#extract")
    assert "<img src=x onerror=" in browser.wait(TOAST)
    assert browser.evaluate("document.querySelectorAll('#marked img, [data-testid=toast-body] img').length") == 0
    assert browser.evaluate("document.title") == "m&ms <b>"


@pytest.mark.slow(20)
def test_a_refusal_is_shown_on_the_page(server, browser):
    browser.open(server.address)
    browser.type("#text textarea", "가" * 2001)
    browser.click("#extract")
    assert "2,001 characters, but at most 2,000 are read at once" in browser.wait(TOAST)
    browser.type("#text textarea", "가" * 40_000)  # more than a request may hold
    browser.click("[data-testid=toast-close]")
    browser.wait("!document.querySelector('[data-testid=toast-body]')")
    browser.click("#extract")
    assert "of at most 89,536 bytes: send less text" in browser.wait(TOAST)


@pytest.mark.slow(15)
def test_eight_clients_at_once_get_the_spans_of_the_model(server, reference):
    """Also of texts that are longer than a window."""
    texts = [f"{number}번 환자는 당뇨병으로 인슐린을 투여받았다. " * (1 + 9 * number) for number in range(8)]

    def ask(text: str) -> dict:
        return make_client(server).predict(text, api_name="/extract")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, texts))
    assert answers == [{"entities": entities_of(reference, text)} for text in texts]
    assert all(answer["entities"] for answer in answers)


@pytest.mark.slow(15)
@pytest.mark.parametrize("labels", [["Drug", "증상"], {"Drug": None, "증상": "환자가 호소하는 불편"}])
def test_a_batch_is_answered_with_the_labels_that_were_asked_for(client, reference, labels):
    texts = [TEXT, "", " \n"]
    first, *others = client.predict(texts, labels, 0.0, api_name="/extract_batch")
    assert first["entities"] == entities_of(reference, TEXT, labels, threshold=0.0)
    assert {each["label"] for each in first["entities"]} == {"Drug", "증상"}
    assert others == [{"entities": []}] * 2
    assert client.predict([], api_name="/extract_batch") == []
    assert client.predict(TEXT, None, 1.0, api_name="/extract") == {"entities": []}


@pytest.mark.slow(15)
@pytest.mark.parametrize(
    ("endpoint", "arguments", "reason"),
    [
        ("/extract", ["가" * 2001], "2,001 characters, but at most 2,000 are read at once: send less text"),
        ("/extract_batch", [["가" * 1000] * 3], "3,000 characters, but at most 2,000 are read at once"),
        ("/extract_batch", [["가"] * 5], "5 texts, but at most 4 are read at once: send fewer"),
        ("/extract_batch", [TEXT], "a text must be a string"),
        ("/extract", [["가"]], "a text must be a string"),
        ("/extract", [TEXT, []], "labels must be a list, or an object"),
        ("/extract", [TEXT, "Drug"], "labels must be a list, or an object"),
        ("/extract", [TEXT, [3]], "a label must be a string"),
        ("/extract", [TEXT, ["Drug", "Drug"]], "the label 'Drug' is given twice"),
        ("/extract", [TEXT, {"Drug": 3}], "a description must be a string or null"),
        ("/extract", [TEXT, [f"label {number}" for number in range(999)]], "the prompt alone takes"),
        ("/extract", [TEXT, None, 50], "threshold 50: it must be a number between 0 and 1"),
        ("/extract", [TEXT, None, "0.5"], "threshold must be a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_in_one_line(client, endpoint, arguments, reason):
    from gradio_client.exceptions import AppError

    with pytest.raises(AppError) as caught:
        client.predict(*arguments, api_name=endpoint)
    message = str(caught.value)
    assert message.startswith(reason)
    assert "\n" not in message


@pytest.mark.slow(15)
def test_requests_beyond_the_queue_and_files_are_refused(server):
    join = f"{server.address}/gradio_api/call/extract"
    body = json.dumps({"data": ["당뇨병 " * 400]}).encode()
    answers = []
    while not answers or answers[-1][0] == 200:
        answers.append(get(join, body))
        assert len(answers) < 500
    status, answer = answers.pop()
    assert (status, json.loads(answer)["detail"]) == (503, "Queue is full. Max size is 8 and size is 8.")
    assert "event: complete" in get(f"{join}/{json.loads(answers[-1][1])['event_id']}")[1]  # the others are done before
    status, answer = get(join, b" " * 100_000)
    assert (status, json.loads(answer)["detail"].endswith("89,536 bytes: send less text")) == (413, True)
    for path in ("upload", "deep_link?session_hash=x", "process_recording"):
        assert get(f"{server.address}/gradio_api/{path}")[0] == 404


@pytest.mark.slow(15)
def test_health_names_the_model_and_its_labels(server, schema):
    status, answer = get(f"{server.address}/health")
    assert (status, json.loads(answer)) == (200, {"status": "ok", "model": "m&ms <b>", "labels": list(schema.labels)})


@pytest.mark.slow(15)
def test_no_text_is_printed_or_written(server, client):
    """Not even that of a request that Gradio itself cannot read; and the failure is printed without it."""
    assert client.predict(f"{SECRET} {TEXT}", api_name="/extract")["entities"]
    for path, data in {
        "call/extract": [SECRET, {SECRET: {"path": SECRET, "meta": SECRET}}],
        "call/v2/extract": SECRET,
        "call/nothing": [SECRET],
        "queue/join": [SECRET, ["Drug"], SECRET, SECRET],
    }.items():
        body = {"data": data, "fn_index": find_page_function(server), "session_hash": "s"}
        get(f"{server.address}/gradio_api/{path}", json.dumps(body, ensure_ascii=False).encode())
    get(f"{server.address}/gradio_api/deep_link?session_hash=s")
    stderr = server.output / "stderr"
    wait_for(lambda: stderr.read_text().count("the request failed") >= 2)
    written = [path for path in (*server.output.rglob("*"), *server.temporary.rglob("*")) if path.is_file()]
    assert stderr in written
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path
        assert SECRET not in path.name


def find_page_function(server) -> int:
    """The number of the function that the button of the page calls."""
    config = json.loads(get(f"{server.address}/config")[1])
    return next(each["id"] for each in config["dependencies"] if len(each["inputs"]) == 4)


@pytest.mark.slow(5)
def test_one_request_at_a_time_runs_the_model(model, monkeypatch):
    """Those of all endpoints wait for each other; and the texts of earlier ones are not kept."""
    import uvicorn
    from starlette.routing import Mount

    from glinerko.sharing.demo import Limits, build_service

    running, at_once = [], []

    def stream(texts, *_, **__):
        running.append(texts)
        time.sleep(0.1)
        at_once.append(len(running))
        running.remove(texts)
        return [[] for _ in texts]

    monkeypatch.setattr(model, "stream_entities", stream)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "True")  # gradio sets it; it would stay for the tests after this one
    service = build_service(model, "m", "", Limits())
    server = uvicorn.Server(uvicorn.Config(service, port=0, log_level="critical"))
    with ThreadPoolExecutor(9) as threads:
        threads.submit(server.run)
        wait_for(lambda: server.started)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/gradio_api/call"
        for number in range(4):
            for name, texts in {"extract": str(number), "extract_batch": [str(number)]}.items():
                threads.submit(get, f"{address}/{name}", json.dumps({"data": [texts]}).encode())
        wait_for(lambda: len(at_once) == 8)
        server.should_exit = True
    assert at_once == [1] * 8
    (page,) = (route.app.get_blocks() for route in service.routes if isinstance(route, Mount))
    assert len(page.state_holder.session_data) == 1  # Gradio keeps the last texts of a session


def test_of_spans_that_overlap_the_best_is_marked():
    from glinerko.sharing.demo import mark

    text = "제2형 당뇨병 환자"
    spans = [(0, 7, "Disease", 0.6), (0, 7, "Procedure", 0.4), (4, 7, "Drug", 0.9), (8, 10, "Drug", 0.5)]
    entities = [{"start": a, "end": b, "label": c, "text": text[a:b], "score": score} for a, b, c, score in spans]
    assert mark(text, entities) == [("제2형 ", None), ("당뇨병", "Drug 0.90"), (" ", None), ("환자", "Drug 0.50")]
    assert mark(text, []) == [(text, None)]
    assert mark("", []) == []


@pytest.mark.slow(10)
def test_an_address_or_device_that_cannot_be_used_is_named(saved):
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = str(used.getsockname()[1])
        result = run(PYTHON, "scripts/demo.py", "--model", saved, "--port", port)
    one_line_error(result, f"--host 127.0.0.1 --port {port}: cannot be used (Address already in use)")
    one_line_error(
        run(PYTHON, "scripts/demo.py", "--model", saved, "--port", "0", "--device", "x"), "--device x: cannot"
    )


@pytest.mark.slow(10)
def test_without_gradio_the_script_says_what_to_install(saved):
    code = (
        "import runpy, sys; sys.modules['gradio'] = None; sys.argv = sys.argv[1:];"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    result = run(sys.executable, "-c", code, "scripts/demo.py", "--model", saved)
    one_line_error(result, "the page needs gradio: run `pip install gradio`")


def test_a_space_is_written(tmp_path):
    import gradio

    result = run(PYTHON, "scripts/demo.py", "--model", "user/medical", "--space", tmp_path / "space", *INSTALL)
    assert result.returncode == 0, result.stderr
    files = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "space").iterdir()}
    assert sorted(files) == ["README.md", "app.py", "requirements.txt"]
    compile(files["app.py"], "app.py", "exec")
    assert 'run_demo("user/medical", host="0.0.0.0"' in files["app.py"]
    assert files["requirements.txt"] == "glinerko[demo] @ git+https://example.org/glinerko\n"
    header = yaml.safe_load(files["README.md"].split("---\n")[1])
    wanted = {"sdk": "gradio", "sdk_version": gradio.__version__, "app_file": "app.py", "models": ["user/medical"]}
    assert header.items() >= wanted.items()
    assert header.keys() >= {"title", "emoji", "colorFrom", "colorTo", "license"}


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("{saved}", "a Space loads its model from the Hub: publish it, and pass its id"),
        ("outputs/no/such", "not the id of a repository"),
        ('user/"); print("', "not the id of a repository"),
    ],
)
def test_a_space_needs_a_model_of_the_hub(saved, tmp_path, model, reason):
    model = model.format(saved=saved)
    result = run(PYTHON, "scripts/demo.py", "--model", model, "--space", tmp_path / "space", *INSTALL)
    one_line_error(result, f"--model {model}: {reason}")
    assert not (tmp_path / "space").exists()


def test_a_space_needs_an_address_to_install_from(tmp_path):
    result = run(PYTHON, "scripts/demo.py", "--model", "user/medical", "--space", tmp_path / "space")
    one_line_error(result, "the Space has to install glinerko: pass --install_from")
    assert not (tmp_path / "space").exists()


def test_a_space_is_not_written_over_files(tmp_path):
    (tmp_path / "app.py").write_text("mine")
    result = run(PYTHON, "scripts/demo.py", "--model", "user/medical", "--space", tmp_path, *INSTALL)
    one_line_error(result, f"--space {tmp_path}: has files already")
    assert (tmp_path / "app.py").read_text() == "mine"


def test_the_image_copies_files_that_exist_and_starts_the_script():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (model,) = re.findall(r"^ARG MODEL=(.+)$", dockerfile, re.MULTILINE)
    recipe = yaml.safe_load((ROOT / "recipes" / "demo.yaml").read_text(encoding="utf-8"))
    assert model == f"{recipe['output_dir']}/best"  # what `make demo` makes
    copied = [line.split()[:-1] for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", dockerfile, re.MULTILINE)]
    sources = [source for line in copied for source in line]
    assert {"requirements.txt", "pyproject.toml", "README.md", "LICENSE", "glinerko", "${MODEL}"} <= {*sources}
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for source in sources:
        assert source == "${MODEL}" or (ROOT / source).exists()
        path = Path(source.replace("${MODEL}", model))
        assert not any(fnmatch.fnmatch(str(part), name) for part in (path, *path.parents) for name in ignored), source
    requirements = (ROOT / "requirements.txt").read_text().splitlines()
    assert "-e ." in requirements  # what `sed` replaces
    assert any(line.startswith("torch==") for line in requirements)
    (entry,) = re.findall(r"^ENTRYPOINT (\[.+\])$", dockerfile, re.MULTILINE)
    program, script, *flags = json.loads(entry)
    assert program == "python"
    assert script in sources
    spec = importlib.util.spec_from_file_location("demo_script", ROOT / script)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for annotations
    spec.loader.exec_module(module)
    options = module.Arguments.__dataclass_fields__
    assert {flag.removeprefix("--") for flag in flags if flag.startswith("--")} <= options.keys()
    assert f"EXPOSE {options['port'].default}\n" in dockerfile
    assert f"http://127.0.0.1:{options['port'].default}/health" in dockerfile
    assert re.search(r"^USER (?!root)", dockerfile, re.MULTILINE)
