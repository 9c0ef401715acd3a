"""A page to try a model in a browser, and an HTTP service, in one process.

One request runs the model at a time; the others wait in a queue. No text is logged, cached or written to a file, and
the page loads nothing from elsewhere, so that it works without a network.
"""

from __future__ import annotations

import html
import logging
import os
import re
import socket
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from gradio_client.utils import is_file_obj_with_meta, traverse
from starlette.datastructures import Headers, MutableHeaders

from glinerko.cli import choose_device
from glinerko.common import DataError, GlinerkoError
from glinerko.hub import fetch, public_name
from glinerko.model.attention import read_faster
from glinerko.model.extractor import KoreanExtractor, load_extractor
from glinerko.sharing.tables import escape_markdown

Labels = list[str] | dict[str, str | None] | None
"""Labels, or a description or ``None`` for each label; ``None`` for the model's own."""
COLUMNS = ("start", "end", "label", "text", "score")
EXAMPLES = [
    "68세 여자 환자로 고혈압과 제2형 당뇨병으로 메트포르민을 복용하던 중 흉통이 있어 내원하였다.",
    "복부 CT에서 담낭염이 확인되어 복강경 담낭절제술을 시행하고 세프트리악손을 정맥 투여하였다.",
    "폐렴으로 입원하여 흉부 X선 촬영을 하였고, C-반응단백이 12.4 mg/dL까지 상승하였다.",
]
COLOURS = ("#fca5a5", "#93c5fd", "#86efac", "#fcd34d", "#c4b5fd", "#f9a8d4", "#67e8f9", "#bef264", "#fdba74", "#d6d3d1")
"""The backgrounds of the labels, in turn."""
CSS = "#marked .label { text-transform: none; color: black }"
DOWNLOAD = """(marked, result) => {
    const text = (marked || []).map((part) => part.token).join("");
    const content = JSON.stringify({text, ...(result || {entities: []})}, null, 2) + "\\n";
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], {type: "application/json"}));
    link.download = "entities.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}"""
"""Makes the file in the browser; the server writes none."""
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
"""What a browser may load: only what this server sends, and the scripts that Gradio writes into its page."""
WRITES_FILES = re.compile(r"/gradio_api/(upload|deep_link|process_recording)\b")
"""The paths at which Gradio would write what it receives, or the last request, to a file."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What one request may hold, and how many may wait."""

    characters: int = 100_000
    """In one text, and in all texts of a batch together."""
    texts: int = 64
    """In a batch."""
    queue: int = 32
    """Requests that wait."""


def find_entities(
    model: KoreanExtractor, texts: Sequence[str], labels: Labels, threshold: float | None, limits: Limits
) -> list[dict[str, list[dict[str, Any]]]]:
    """For each text ``{"entities": [{"start", "end", "label", "text", "score"}]}``, in reading order.

    Raises:
        DataError: More than the limits allow, or a text, label or threshold that cannot be used.
    """
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError("a text must be a string")
    if len(texts) > limits.texts:
        raise DataError(f"{len(texts):,} texts, but at most {limits.texts:,} are read at once: send fewer")
    if (size := sum(map(len, texts))) > limits.characters:
        raise DataError(f"{size:,} characters, but at most {limits.characters:,} are read at once: send less text")
    if labels is not None and not (labels and isinstance(labels, list | dict)):
        raise DataError("labels must be a list, or an object with a description or null for each label")
    descriptions = labels.values() if isinstance(labels, dict) else ()
    if not all(description is None or isinstance(description, str) for description in descriptions):
        raise DataError("a description must be a string or null")
    if threshold is not None and type(threshold) not in (int, float):
        raise DataError("threshold must be a number from 0 to 1")
    found = model.stream_entities(texts, labels, threshold=threshold)
    return [{"entities": [span.to_record(text) for span in spans]} for text, spans in zip(texts, found, strict=True)]


def mark(text: str, entities: Sequence[Mapping[str, Any]]) -> list[tuple[str, str | None]]:
    """The text in parts, each with the label and score of its span or ``None``; of spans that overlap only the best."""
    taken, marked, parts, end = bytearray(len(text)), [], [], 0
    for each in sorted(entities, key=lambda each: -each["score"]):
        if not any(taken[each["start"] : each["end"]]):
            taken[each["start"] : each["end"]] = b"\1" * (each["end"] - each["start"])
            marked.append(each)
    for each in sorted(marked, key=lambda each: each["start"]):
        parts += [(text[end : each["start"]], None), (each["text"], _title(each))]
        end = each["end"]
    return [(part, title) for part, title in [*parts, (text[end:], None)] if part]


def _title(entity: Mapping[str, Any]) -> str:
    return f"{entity['label']} {entity['score']:.2f}"


def build_page(model: KoreanExtractor, name: str, card: str, limits: Limits) -> gr.Blocks:
    """The page, and the endpoints ``/extract`` and ``/extract_batch``.

    Args:
        name: The title: the name of the model.
        card: The model card in Markdown.
    """
    own = list(model.settings.labels)

    def extract(text: str, labels: Labels = None, threshold: float | None = None) -> dict[str, Any]:
        """The entities of a text. Labels: a list, or a description for each; by default the model's own."""
        return find_entities(model, [text], labels, threshold, limits)[0]

    def extract_batch(texts: list[str], labels: Labels = None, threshold: float | None = None) -> list[dict[str, Any]]:
        """The entities of each text. Labels: a list, or a description for each; by default the model's own."""
        return find_entities(model, texts, labels, threshold, limits)

    def show(text: str, chosen: list[str], rows: list[list[str]], threshold: float) -> tuple[Any, list, dict]:
        described = {label.strip(): description.strip() for label, description, *_ in rows if label.strip()}
        labels = dict.fromkeys(chosen) | described
        if not labels:
            raise DataError("choose a label, or write one into the table")
        result = extract(text, labels, threshold)
        places = {label: place for place, label in enumerate(dict.fromkeys([*own, *labels]))}
        colours = {_title(each): COLOURS[places[each["label"]] % len(COLOURS)] for each in result["entities"]}
        table = [list(each.values()) for each in result["entities"]]
        return gr.HighlightedText(mark(text, result["entities"]), color_map=colours), table, result

    one_at_a_time = {"concurrency_id": "model", "concurrency_limit": 1}  # torch uses all cores
    with gr.Blocks(title=name, analytics_enabled=False) as page:
        gr.Markdown(f"# {escape_markdown(name)}\nEntities in Korean text · 한국어 개체명 인식")
        with gr.Row():
            with gr.Column(scale=3):
                text = gr.Textbox(label="Text · 텍스트", lines=6, max_lines=20, elem_id="text")
                gr.Examples(EXAMPLES, text, label="Examples · 예시", cache_examples=False)
                button = gr.Button("Extract · 추출", variant="primary", elem_id="extract")
                marked = gr.HighlightedText(label="Marked text · 표시된 텍스트", interactive=False, elem_id="marked")
                table = gr.Dataframe(
                    headers=list(COLUMNS), datatype=["number", "number", "str", "str", "number"], interactive=False,
                    label="Spans · 구간", buttons=["copy", "fullscreen"], wrap=True, elem_id="spans",
                )  # fmt: skip
            with gr.Column(scale=2):
                chosen = gr.CheckboxGroup(own, value=own, label="Labels · 레이블", visible=bool(own), elem_id="labels")
                rows = gr.Dataframe(
                    [["", ""]] * 3, headers=["label", "description"], type="array", column_count=2, interactive=True,
                    label="New labels, other descriptions · 새 레이블, 다른 설명", buttons=[], elem_id="new_labels",
                )  # fmt: skip
                best = model.choose_threshold()
                threshold = gr.Slider(0, 1, best, step=0.01, label="Threshold · 임계값", elem_id="threshold")
                with gr.Accordion("JSON", open=False):
                    result = gr.JSON(show_label=False)
                save = gr.Button("Download JSON · JSON 내려받기", elem_id="download")
        with gr.Accordion("Model card · 모델 카드", open=False, elem_id="card"):
            gr.Markdown(card)
        inputs, outputs = [text, chosen, rows, threshold], [marked, table, result]
        button.click(show, inputs, outputs, api_visibility="private", **one_at_a_time)
        save.click(None, [marked, result], js=DOWNLOAD)
        gr.api(extract, api_name="extract", **one_at_a_time)
        gr.api(extract_batch, api_name="extract_batch", **one_at_a_time)
    page.state_session_capacity = 1  # Gradio keeps the inputs of so many sessions in memory
    page.process_api = _with_one_line_errors(page.process_api)
    return page.queue(max_size=limits.queue, api_open=False)


def _with_one_line_errors(process_api: Callable[..., Awaitable[dict]]) -> Callable[..., Awaitable[dict]]:
    """``Blocks.process_api`` with errors of one line for the caller; Gradio would print a traceback with the inputs."""

    def refuse(_: dict) -> None:
        raise DataError("files are not accepted: send the text")  # Gradio would copy the file that a caller names

    async def process(block_fn: Any, inputs: list[Any], **options: Any) -> dict:
        try:
            traverse(inputs, refuse, is_file_obj_with_meta)
            missing = [None] * (len(block_fn.inputs) - len(inputs))  # all but the text can be left out
            return await process_api(block_fn=block_fn, inputs=[*inputs, *missing], **options)
        except GlinerkoError as error:
            message = str(error)
        except gr.Error as error:
            message = error.message
        except Exception as error:  # its message may hold a text
            message = f"the request failed ({type(error).__name__}); /gradio_api/info says what can be sent"
            logger.error("%s\n%s", message, "".join(traceback.format_tb(error.__traceback__)))
        shown = html.escape(message) if block_fn.api_visibility == "private" else message  # the page takes it as HTML
        raise gr.Error(shown, print_exception=False)

    return process


class _Guard:
    """ASGI middleware: refuses what is too large or would be written to a file, and sends :data:`POLICY`."""

    def __init__(self, app: Callable, largest: int):
        self.app, self.largest = app, largest

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        app = self.app
        if scope["type"] == "http":
            size = Headers(scope=scope).get("content-length", "" if scope["method"] == "POST" else "0")
            if WRITES_FILES.search(scope["path"]):
                app = JSONResponse({"detail": "files are not accepted: send the text"}, 404)
            elif not size.isdigit() or int(size) > self.largest:
                reason = f"a request must state its size, and be of at most {self.largest:,} bytes: send less text"
                app = JSONResponse({"detail": reason}, 413)
        await app(scope, receive, send_with_policy)


def build_service(model: KoreanExtractor, name: str, card: str, limits: Limits) -> FastAPI:
    """The page with its endpoints, and ``/health``; see :func:`build_page`."""
    service = FastAPI(openapi_url=None)

    @service.get("/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "model": name, "labels": list(model.settings.labels)}

    service.add_middleware(_Guard, largest=2**16 + 12 * limits.characters)  # JSON can write a character in 12 bytes
    page = build_page(model, name, card, limits)
    return gr.mount_gradio_app(service, page, "/", footer_links=["api"], run_history=False, ssr_mode=False, css=CSS)


def run_demo(
    name_or_path: str,
    *,
    host: str,
    port: int = 7860,
    device: str | None = None,
    limits: Limits = Limits(),
    ready: Callable[[str], None],
) -> None:
    """Load a model and serve it until the process is interrupted.

    Args:
        name_or_path: A directory, which is shown by the title of its model card, or the id of a repository of the Hub.
        port: 0 for any that is free.
        device: A GPU by default, if there is one.
        ready: Called with the address once requests are accepted.

    Raises:
        GlinerkoError: The address or the device cannot be used, or the model cannot be loaded.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise GlinerkoError(f"--host {host} --port {port}: cannot be used ({error.strerror})") from error
        directory = fetch(name_or_path)
        model = load_extractor(directory, map_location=choose_device(device))
        read_faster(model)
        card = read_card(directory)
        title = re.match(r"\s*# (.+)", card) if Path(name_or_path).is_dir() else None
        name = re.sub(r"\\(.)", r"\1", title[1]) if title else public_name(name_or_path)
        service = build_service(model, name, card, limits)
        listening.listen()
        ready(f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}")
        # No messages of uvicorn: they could hold parts of a request.
        config = uvicorn.Config(service, log_level="critical", access_log=False, timeout_graceful_shutdown=1)
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listening])


def read_card(directory: Path) -> str:
    """The card of a model, without its YAML header and its images."""
    card = directory / "README.md"
    content = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else "This model has no card."
    content = re.sub(r"\A---\n.*?\n---\n", "", content, flags=re.DOTALL)
    return re.sub(r"!\[[^\]]*\]\([^)]*\)\n*", "", content)
