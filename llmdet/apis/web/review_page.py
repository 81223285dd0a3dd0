"""The part of the page where a person decides about doubtful boxes, laid out with gradio."""

from __future__ import annotations

from typing import Any

import gradio as gr

from llmdet.apis.web.mistakes import errors_on_the_page
from llmdet.apis.web.review import COLUMNS, Review

_HELP = (
    "Boxes with scores near a threshold, the most doubtful first. **Save** writes what you decided "
    "into the data set; boxes without a decision stay as they are."
)


class ReviewPage:
    """What happens there: each method answers one event, and gives :meth:`outputs`."""

    def __init__(self, review: Review) -> None:
        self.review = review

    def show(self, position: float) -> list[Any]:
        """Show a box; positions before the first and behind the last are those."""
        with errors_on_the_page():
            at = min(max(int(position), 0), len(self.review.boxes) - 1)
            review = self.review
            return [
                at,
                review.draw(at),
                review.sentence(at),
                review.rows(),
                gr.Dropdown(value=None),
            ]

    def keep(self, position: int) -> list[Any]:
        """The box is what the detector says."""
        self.review.decide(position, self.review.boxes[position].label)
        return self.show(position + 1)

    def drop(self, position: int) -> list[Any]:
        """There is no such object."""
        self.review.decide(position, None)
        return self.show(position + 1)

    def relabel(self, position: int, label: int | None) -> list[Any]:
        """The box is of another class."""
        if label is None:
            return self.show(position)
        self.review.decide(position, label)
        return self.show(position + 1)

    def back(self, position: int) -> list[Any]:
        """Show the box before."""
        return self.show(position - 1)

    def forward(self, position: int) -> list[Any]:
        """Show the next box."""
        return self.show(position + 1)

    def select(self, event: gr.SelectData) -> list[Any]:
        """Show the box of a line of the table."""
        return self.show(event.index[0])

    def save(self) -> str:
        """Write the decisions."""
        with errors_on_the_page():
            return self.review.save()


def add_review(review: Review) -> None:
    """Lay it out where gradio is, and connect it."""
    gr.Markdown(_HELP)
    if not review.boxes:
        gr.Markdown("No box has a score near its threshold.")
        return
    page = ReviewPage(review)
    position = gr.State(0)
    with gr.Row():
        with gr.Column(scale=6, min_width=400):
            image = gr.Image(
                lambda: review.draw(0), format="png", interactive=False, height=520,
                buttons=["fullscreen"], show_label=False, elem_id="review_image",
            )  # fmt: skip
            sentence = gr.Textbox(
                lambda: review.sentence(0), show_label=False, interactive=False,
                elem_id="review_sentence", container=False,
            )  # fmt: skip
            keep, drop, other, back, forward = _choices(review)
        with gr.Column(scale=5, min_width=320):
            table = gr.Dataframe(
                review.rows, headers=list(COLUMNS), interactive=False, wrap=True,
                datatype=["str", "str", "number", "str"], max_height=520,
                label="Doubtful boxes", elem_id="review_table",
            )  # fmt: skip
            save = gr.Button("Save", variant="primary", elem_id="review_save")
            saved = gr.Textbox(
                show_label=False, interactive=False, elem_id="review_saved", container=False
            )
    shown = [position, image, sentence, table, other]
    options: dict[str, Any] = {
        "concurrency_id": "review",  # there is one list of decisions
        "concurrency_limit": 1,
        "api_visibility": "private",
        "show_progress": "hidden",
    }
    for button, answer in (
        (keep, page.keep),
        (drop, page.drop),
        (back, page.back),
        (forward, page.forward),
    ):
        button.click(answer, [position], shown, **options)
    other.input(page.relabel, [position, other], shown, **options)
    table.select(page.select, None, shown, **options)
    save.click(page.save, None, [saved], **options)


def _choices(review: Review) -> tuple[Any, ...]:
    with gr.Row():
        keep = gr.Button("Keep", elem_id="review_keep")
        drop = gr.Button("Drop", elem_id="review_drop")
        other = gr.Dropdown(
            [(name, label) for label, name in enumerate(review.classes)], value=None,
            show_label=False, container=False, info="another class", elem_id="review_class",
        )  # fmt: skip
    with gr.Row():
        back = gr.Button("Back", size="sm", elem_id="review_back")
        forward = gr.Button("Next", size="sm", elem_id="review_next")
    return keep, drop, other, back, forward
