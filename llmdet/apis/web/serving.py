"""Who may reach the web demo, and what it hands out."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmdet.errors import ConfigError

if TYPE_CHECKING:
    from llmdet.apis.detector import Detector
    from llmdet.apis.web.examples import Example
    from llmdet.apis.web.review import Review

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
_LARGEST_UPLOAD = "20mb"
_LONGEST_QUEUE = 32  # waiting visitors
_MOST_VISITORS = 64  # whose pictures are kept in memory
#: Paths of gradio by which a server fetches addresses for its visitors.
_FETCHING = ("/file=http", "/proxy=")


@dataclass(frozen=True)
class Serving:
    """Where the demo is served."""

    host: str = LOOPBACK
    port: int | None = None  # None takes the first free one from 7860
    share: bool = False  # through a public address of gradio's servers


@contextmanager
def running_demo(
    detector: Detector,
    serving: Serving,
    threshold: float = 0.3,
    examples: Sequence[Example] = (),
    review: Review | None = None,
) -> Iterator[Any]:
    """Serve the demo; what visitors uploaded is deleted at the end.

    Args:
        detector: finds and describes.
        serving: where.
        threshold: where the score's slider stands at the beginning.
        examples: pictures with questions below the page; copies of them are handed out.
        review: boxes that whoever reaches the page decides about.

    Yields:
        The running ``gradio.Blocks``.

    Raises:
        ConfigError: gradio is not installed, or the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="llmdet_demo_") as folder:
        uploads, results = Path(folder, "uploads"), Path(folder, "results")
        results.mkdir()
        kept = [_copied(example, Path(folder, f"{i}")) for i, example in enumerate(examples)]
        # Before gradio is imported: the only files that it hands out, and no word to its makers.
        settings = {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
        with _environment(settings):
            try:
                from llmdet.apis.web.page import Page, build_page
            except ImportError as error:
                raise ConfigError(
                    "The web demo needs gradio: pip install 'llmdet[demo]'."
                ) from error
            blocks = build_page(Page(detector, threshold, results), kept, review)
            _launch(blocks, serving)
            try:
                yield blocks
            finally:
                blocks.close(verbose=False)


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while; another demo of this process has its own."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _copied(example: Example, folder: Path) -> Example:
    """Copy the picture of an example to where gradio may read it, wherever it lies."""
    folder.mkdir()
    return replace(example, image=Path(shutil.copy(example.image, folder)))


def _launch(blocks: Any, serving: Serving) -> None:
    import gradio as gr
    from starlette.middleware import Middleware

    from llmdet.apis.web.page import CSS

    fonts = ["system-ui", "sans-serif"]  # those of the machine: nothing is fetched for the page
    blocks.queue(max_size=_LONGEST_QUEUE, api_open=False)
    try:
        blocks.launch(
            server_name=serving.host,
            server_port=serving.port,
            share=serving.share,
            max_file_size=_LARGEST_UPLOAD,
            state_session_capacity=_MOST_VISITORS,
            app_kwargs={"middleware": [Middleware(NoFetching)]},
            theme=gr.themes.Soft(font=fonts, font_mono=["ui-monospace", "monospace"]),
            css=CSS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            prevent_thread_lock=True,
            quiet=True,
        )
    except OSError as error:
        where = f"{serving.host}:{serving.port or '7860-7959'}"
        raise ConfigError(
            f"The demo cannot be served at {where}, which is taken or not an address of this "
            "machine: choose another --server-port or --server-name."
        ) from error
    logger.info("The demo is at %s", blocks.local_url)
    if serving.share:
        logger.warning("Whoever knows %s can use it.", blocks.share_url)
    elif serving.host != LOOPBACK:
        logger.warning("Whoever reaches %s can use it: there is no password.", serving.host)


class NoFetching:
    """ASGI middleware: this server fetches no addresses for its visitors."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer 403 where gradio would fetch."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not any(part in path for part in _FETCHING):
            await self.app(scope, receive, send)
            return
        head = {"type": "http.response.start", "status": 403, "headers": []}
        await send(head)
        await send({"type": "http.response.body", "body": b""})
