"""What a visitor reads where something went wrong."""

from __future__ import annotations

import html
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from llmdet.errors import LLMDetError

logger = logging.getLogger(__name__)


@contextmanager
def errors_on_the_page() -> Iterator[None]:
    """Show what a visitor did wrong; anything else is a defect, and its text stays in the log."""
    try:
        yield
    except LLMDetError as error:
        raise gr.Error(html.escape(str(error)), print_exception=False) from error
    except gr.Error:
        raise
    except Exception as error:
        logger.exception("the web demo failed")
        message = "This failed on our side; the log of the server says why."
        raise gr.Error(message, print_exception=False) from error
