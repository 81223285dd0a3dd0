"""An OpenAI-compatible endpoint on this machine."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image


class Server:
    """Replies are scripted; without a script it answers with the text and the picture's size.

    A reply is (status, body), or a number of seconds to stay silent.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[dict, dict]] = []
        self.replies: list[tuple[int, object] | float] = []
        self.reply = describe_size
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((headers, {"path": self.path, **body}))
                reply = server.replies.pop(0) if server.replies else server.reply(body)
                if isinstance(reply, float):
                    time.sleep(reply)
                    return
                status, answer = reply
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


def describe_size(body: dict) -> tuple[int, object]:
    *pictures, text = body["messages"][-1]["content"]
    sizes = []
    for picture in pictures:
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        sizes.append("{}x{}".format(*Image.open(io.BytesIO(data)).size))
    return 200, completion(" ".join([text["text"], *sizes]))


def completion(text: str | None) -> dict:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": choices,
    }


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = Server()
    yield running
    running.close()
