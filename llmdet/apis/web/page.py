"""The page of the web demo, laid out with gradio."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from llmdet.apis.detector import Detector
from llmdet.apis.web.examples import Example
from llmdet.apis.web.mistakes import errors_on_the_page
from llmdet.apis.web.review import Review
from llmdet.apis.web.review_page import add_review
from llmdet.apis.web.visit import COLUMNS, LOWEST_SCORE, TASKS, Visit

TITLE = "LLMDet"
_WORDS = {
    "Class names": ("Class names", "red circle, blue square"),
    "Sentence": ("Sentence, whose noun phrases are found", "A red circle is above a blue square."),
    "Expression": ("Expression, which describes one thing", "the circle above the square"),
}
_KEPT_SECONDS = 1800  # that a visitor's picture stays in memory
CSS = """
.gradio-container {max-width: 1320px !important; margin: 0 auto !important}
#title h1 {margin-bottom: 0} #title p {margin-top: 4px; color: var(--body-text-color-subdued)}
#found img {object-fit: contain; cursor: crosshair}
#summary textarea {font-weight: 600}
footer {display: none !important}
"""


class Page:
    """What happens on the page: each method answers one event.

    Args:
        detector: finds and describes.
        threshold: where the slider stands at the beginning.
        folder: gets the files for download; gradio must be allowed to serve it.
    """

    def __init__(self, detector: Detector, threshold: float, folder: Path) -> None:
        self.detector, self.threshold, self.folder = detector, threshold, folder

    def open(self, path: str | None, threshold: float) -> list[Any]:
        """Take an uploaded picture."""
        if path is None:
            return self._blank()
        with errors_on_the_page():
            visit = Visit.of(self.detector, path)
            return self._show(visit, threshold)

    def find(
        self,
        visit: Visit | None,
        task: str,
        words: str,
        threshold: float,
        merge: bool,
        captions: bool,
    ) -> list[Any]:
        """Find what the words name, and describe it where that is wanted."""
        with errors_on_the_page():
            visit = _needed(visit)
            visit.find(task, words, merge)
            if captions and self.detector.gives_captions:
                visit.describe(visit.shown(threshold))
            return self._show(visit, threshold)

    def run_example(self, path: str, task: str, words: str) -> list[Any]:
        """Open a picture and find what its question names; the slider goes back to its start."""
        with errors_on_the_page():
            visit = Visit.of(self.detector, path)
            visit.find(task, words)
            return [*self._show(visit, self.threshold), self.threshold]

    def filter(self, visit: Visit | None, threshold: float) -> list[Any]:
        """Apply another threshold; the model does not run."""
        if visit is None:
            return self._blank()
        return self._show(visit, threshold)

    def choose(
        self, visit: Visit | None, threshold: float, choices: Sequence[str] | None
    ) -> list[Any]:
        """Show some of the classes; the model does not run. All outputs but the choice itself."""
        if visit is None:
            return self._blank()[:-1]
        names = list(visit.names(threshold))
        chosen = [names[index] for index in map(int, choices or ()) if index < len(names)]
        return self._show(visit, threshold, chosen)[:-1]

    def click(self, visit: Visit | None, threshold: float, event: gr.SelectData) -> list[Any]:
        """Take a corner of a box that the visitor draws."""
        with errors_on_the_page():
            visit = _needed(visit)
            if not self.detector.gives_captions:
                raise gr.Error(
                    "This model has no language model to describe a box.", print_exception=False
                )
            x, y = event.index
            visit.click(float(x), float(y))
            return self._show(visit, threshold)

    def forget(self, visit: Visit | None, threshold: float) -> list[Any]:
        """Remove the visitor's own boxes."""
        if visit is not None:
            visit.forget_own_boxes()
        return self.filter(visit, threshold)

    def _show(self, visit: Visit, threshold: float, names: list[str] | None = None) -> list[Any]:
        """Values of the page's outputs, in the order of :meth:`Layout.outputs`."""
        positions = visit.shown(threshold, names)
        drawn = visit.draw(positions)
        stem = Path(visit.name).stem[:40] or "picture"
        forget_files(visit)  # gradio has copied them
        visit.files = folder = Path(tempfile.mkdtemp(dir=self.folder))
        picture, data = folder / f"{stem}_found.png", folder / f"{stem}_found.json"
        Image.fromarray(drawn.picture).save(folder / "shown.png", compress_level=1)
        captioned = visit.draw(positions, captions=True).picture
        Image.fromarray(captioned).save(picture, compress_level=1)
        data.write_text(json.dumps(visit.to_dict(positions, threshold), indent=1), "utf-8")
        counts = visit.names(threshold)
        choices = [(f"{name} ({n})", str(i)) for i, (name, n) in enumerate(counts.items())]
        return [
            visit,
            str(folder / "shown.png"),
            visit.summary(positions, threshold),
            visit.rows(positions),
            gr.DownloadButton(value=str(data), interactive=True),
            gr.DownloadButton(value=str(picture), interactive=True),
            gr.CheckboxGroup(
                choices=choices, value=[value for _, value in choices], visible=len(counts) > 1
            ),
        ]

    def _blank(self) -> list[Any]:
        off = gr.DownloadButton(value=None, interactive=False)
        return [None, None, "", [], off, off, gr.CheckboxGroup(choices=[], visible=False)]


def forget_files(visit: Visit | None) -> None:
    """Delete the files for download of a visit."""
    if visit is not None and visit.files is not None:
        shutil.rmtree(visit.files, ignore_errors=True)


def _needed(visit: Visit | None) -> Visit:
    if visit is None:
        raise gr.Error("Upload a picture first.", print_exception=False)
    return visit


@dataclass(frozen=True)
class Layout:
    """The parts of the page that events read and write."""

    visit: gr.State
    image: gr.Image
    task: gr.Radio
    words: gr.Textbox
    merge: gr.Checkbox
    captions: gr.Checkbox
    find: gr.Button
    found: gr.Image
    threshold: gr.Slider
    classes: gr.CheckboxGroup
    summary: gr.Textbox
    table: gr.Dataframe
    data: gr.DownloadButton
    picture: gr.DownloadButton
    forget: gr.Button

    def outputs(self) -> list[Any]:
        """What most events write."""
        shown = (self.visit, self.found, self.summary, self.table, self.data, self.picture)
        return [*shown, self.classes]


def build_page(
    page: Page, examples: Sequence[Example] = (), review: Review | None = None
) -> gr.Blocks:
    """Lay out the page and connect it; boxes to review have a tab before it."""
    about = _about(page.detector)
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        if review is None:
            gr.Markdown(f"# {TITLE}\nFind in a picture what words name. {about}", elem_id="title")
            _add_search(page, examples)
        else:
            gr.Markdown(f"# {TITLE}", elem_id="title")
            with gr.Tab("Review"):
                add_review(review)
            with gr.Tab("Find"):
                gr.Markdown(f"Find in a picture what words name. {about}")
                _add_search(page, examples)
    return blocks


def _add_search(page: Page, examples: Sequence[Example]) -> None:
    """Lay out a question and its answer."""
    with gr.Row():
        with gr.Column(scale=5, min_width=320) as left:
            image, task, words, merge, captions, find = _questions(page)
        with gr.Column(scale=6, min_width=400):
            found, threshold, classes, summary = _answers(page)
            table, data, picture, forget = _records(page)
    visit = gr.State(None, time_to_live=_KEPT_SECONDS, delete_callback=forget_files)
    layout = Layout(
        visit, image, task, words, merge, captions, find, found, threshold, classes, summary,
        table, data, picture, forget,
    )  # fmt: skip
    _connect(layout, page)
    if examples:
        with left:
            _add_examples(examples, layout, page)


def _add_examples(examples: Sequence[Example], layout: Layout, page: Page) -> None:
    gr.Examples(
        [[str(example.image), example.task, example.words] for example in examples],
        [layout.image, layout.task, layout.words],
        [*layout.outputs(), layout.threshold],
        page.run_example,
        run_on_click=True,
        cache_examples=False,
        label="Examples",
        elem_id="examples",
        api_visibility="private",
    )


def _about(detector: Detector) -> str:
    if not detector.gives_captions:
        return "This model gives no captions."
    return "Click two corners of a box in the right picture to have its content described."


def _questions(page: Page) -> tuple[Any, ...]:
    image = gr.Image(
        type="filepath",
        image_mode=None,  # handed on as it was uploaded: our own reader knows what it may read
        sources=["upload", "clipboard"],
        label="Picture",
        height=300,
        elem_id="image",
        buttons=[],
    )
    _fetch_no_addresses(image)
    task = gr.Radio(list(TASKS), value=next(iter(TASKS)), label="What you write", elem_id="task")
    label, hint = _WORDS["Class names"]
    words = gr.Textbox(
        label=label, placeholder=hint, lines=2, max_lines=6, max_length=4000, elem_id="words"
    )
    with gr.Row():
        merge = gr.Checkbox(
            True, label="One box for each object (NMS)", elem_id="merge", container=False
        )
        captions = gr.Checkbox(
            label="Describe picture and boxes",
            visible=page.detector.gives_captions,
            elem_id="captions",
            container=False,
        )
    find = gr.Button("Find", variant="primary", elem_id="find")
    return image, task, words, merge, captions, find


def _fetch_no_addresses(image: gr.Image) -> None:
    """Take files of the upload folder alone: gradio would fetch what looks like an address.

    Not by a subclass, for which gradio writes a file beside its module.
    """
    move = image.async_move_resource_to_block_cache

    async def move_uploaded(url_or_file_path: str | Path | None) -> str | None:
        if "://" in str(url_or_file_path):
            raise gr.Error("Addresses are not fetched: upload the picture.", print_exception=False)
        return await move(url_or_file_path)

    image.async_move_resource_to_block_cache = move_uploaded  # type: ignore[method-assign]


def _answers(page: Page) -> tuple[Any, ...]:
    found = gr.Image(
        type="filepath",
        format="png",
        label="Found",
        interactive=False,
        height=520,
        buttons=["fullscreen"],
        elem_id="found",
    )
    summary = gr.Textbox(
        show_label=False, interactive=False, elem_id="summary", container=False, max_lines=6
    )
    threshold = gr.Slider(
        LOWEST_SCORE,
        1,
        value=max(page.threshold, LOWEST_SCORE),
        step=0.01,
        label="Least score",
        elem_id="threshold",
    )
    classes = gr.CheckboxGroup(label="Shown", visible=False, elem_id="classes")
    return found, threshold, classes, summary


def _records(page: Page) -> tuple[Any, ...]:
    table = gr.Dataframe(
        headers=list(COLUMNS),
        datatype=["str", "number", "str", "str"],
        column_widths=["24%", "12%", "32%", "32%"],
        interactive=False,
        wrap=True,
        label="Boxes, in pixels of the original picture",
        elem_id="table",
        max_height=320,
        buttons=["copy"],
    )
    with gr.Row():
        data = gr.DownloadButton("Download JSON", size="md", interactive=False, elem_id="json")
        picture = gr.DownloadButton(
            "Download picture", size="md", interactive=False, elem_id="picture"
        )
        captions = page.detector.gives_captions
        forget = gr.Button("Remove my boxes", size="md", visible=captions, elem_id="forget")
    return table, data, picture, forget


def _connect(layout: Layout, page: Page) -> None:
    """Connect events; those that run the model wait for each other in one queue."""
    model: dict[str, Any] = {
        "concurrency_id": "model",
        "concurrency_limit": 1,
        "api_visibility": "private",
    }
    light: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    outputs, threshold, visit = layout.outputs(), layout.threshold, layout.visit
    _on(layout.image.upload, page.open, [layout.image, threshold], outputs, model)
    _on(layout.image.clear, page.open, [layout.image, threshold], outputs, light)
    asked = [visit, layout.task, layout.words, threshold, layout.merge, layout.captions]
    _on(layout.find.click, page.find, asked, outputs, model)
    _on(layout.words.submit, page.find, asked, outputs, model)
    _on(threshold.release, page.filter, [visit, threshold], outputs, light)
    _on(layout.classes.input, page.choose, [visit, threshold, layout.classes], outputs[:-1], light)
    _on(layout.found.select, page.click, [visit, threshold], outputs, model)
    _on(layout.forget.click, page.forget, [visit, threshold], outputs, light)
    _on(layout.task.change, _rename_words, [layout.task], [layout.words], light)


def _on(
    event: Callable[..., Any],
    answer: Callable[..., Any],
    inputs: list[Any],
    outputs: list[Any],
    options: dict[str, Any],
) -> None:
    event(answer, inputs, outputs, **options)


def _rename_words(task: str) -> Any:
    label, hint = _WORDS[task]
    return gr.Textbox(label=label, placeholder=hint)
