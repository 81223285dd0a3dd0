"""The command that captions a data set, against an endpoint on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

from llmdet.datasets.toy import ToySettings, generate
from llmdet.errors import ConfigError
from llmdet.testing.programs import load_program

TOOL = Path(__file__).parents[2] / "tools" / "caption_dataset.py"
CAPTION = "A red circle lies above a blue square on a plain grey background without other shapes."


class Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"][1]["text"]
        answer = "a small bright shape." if "phrase" in prompt else CAPTION
        reply = json.dumps({"choices": [{"message": {"content": answer}}]})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(reply.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_program(TOOL)


def test_a_coco_file_gets_captions_and_region_phrases(tool, url, tmp_path: Path, capsys) -> None:
    root = tmp_path / "toy"
    generate(root, ToySettings(train=3, val=1, size=48))
    out = tmp_path / "rows.jsonl"
    annotations = root / "annotations" / "train_coco.json"
    given = json.loads(annotations.read_text())
    arguments = [str(annotations), str(out), "--images", str(root / "images")]
    arguments += ["--backend", "openai", "--url", url, "--model", "m"]
    tool.main([*arguments, "--regions", "16", "--min-words", "10"])
    assert "rows.jsonl: 3 rows" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["conversations"][1]["value"] for row in rows] == [CAPTION] * 3
    regions = [region for row in rows for region in row["grounding"]["regions"]]
    assert {region["phrase"] for region in regions} == {"a small bright shape"}
    boxes = [b if isinstance(b[0], list) else [b] for b in (r["bbox"] for r in regions)]
    assert sum(map(len, boxes)) == len(given["annotations"])

    before = out.read_bytes()
    with pytest.raises(ConfigError, match=r"rows\.jsonl exists: .* --overwrite"):
        tool.main(arguments)
    assert out.read_bytes() == before
    tool.main([*arguments, "--overwrite"])
    assert b"bright" not in out.read_bytes()  # no regions were asked for


def test_the_endpoint_needs_a_url(tool, capsys) -> None:
    with pytest.raises(SystemExit):
        tool.parse_args(["a", "b", "--images", "c", "--backend", "openai", "--model", "m"])
    assert "--backend openai needs --url" in capsys.readouterr().err


def test_an_unknown_format_is_an_error(tool, tmp_path: Path) -> None:
    arguments = [str(tmp_path / "a.xyz"), str(tmp_path / "b.jsonl"), "--images", str(tmp_path)]
    arguments += ["--backend", "openai", "--url", "http://localhost:1", "--model", "m"]
    with pytest.raises(ConfigError, match="the format is not clear; say it with --from"):
        tool.main(arguments)
