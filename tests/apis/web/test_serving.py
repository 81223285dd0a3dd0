"""What the web demo's server hands out, and to whom."""

import json
import socket

import httpx
import pytest

from llmdet.apis.web.serving import Serving, running_demo
from llmdet.errors import ConfigError


@pytest.fixture
def client(page):
    with httpx.Client(base_url=page, timeout=30) as client:
        yield client


def open_picture(client, picture):
    """Call the function that takes an uploaded picture; returns the events it answers with."""
    config = client.get("config").json()
    target = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "image")
    call = next(d for d in config["dependencies"] if [target, "upload"] in d["targets"])
    join = {"data": [picture, 0.3], "fn_index": call["id"], "session_hash": "test"}
    assert client.post("gradio_api/queue/join", json=join).status_code == 200
    events = []
    with client.stream("GET", "gradio_api/queue/data?session_hash=test") as lines:
        for line in lines.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line[5:]))
                if events[-1]["msg"] == "process_completed":
                    break
    return events


def test_it_listens_on_the_loopback_alone(page):
    port = int(page.rstrip("/").rpartition(":")[2])
    assert page.startswith("http://127.0.0.1:")
    with socket.socket() as other:
        other.settimeout(2)
        assert other.connect_ex(("127.0.0.2", port)) != 0


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/hostname",
        "gradio_api/file=http://127.0.0.1/x.png",
        "gradio_api/proxy=http://127.0.0.1/x.png",
        "gradio_api/file=../../../../etc/hostname",
        "file=/etc/hostname",
    ],
)
def test_nothing_but_uploads_and_results_is_handed_out(client, path):
    answer = client.get(path, follow_redirects=False)
    assert answer.status_code in (403, 404)
    assert b"localhost" not in answer.content


def test_files_beside_the_uploads_are_not_handed_out(client, root):
    for path in (root / "setup.py", root / "README.md"):
        assert client.get(f"gradio_api/file={path}").status_code in (403, 404)


@pytest.mark.parametrize("place", ["/etc/hostname", "http://127.0.0.1:1/x.png"])
def test_a_picture_must_have_been_uploaded(client, place):
    picture = {"path": place, "meta": {"_type": "gradio.FileData"}}
    end = open_picture(client, picture)[-1]
    assert not end["success"]
    assert "found.png" not in json.dumps(end)


def test_an_uploaded_picture_is_opened_and_its_results_are_handed_out(client, photos):
    with (photos / "cat.jpg").open("rb") as file:
        (path,) = client.post("gradio_api/upload", files={"files": file}).json()
    picture = {"path": path, "orig_name": "cat.jpg", "meta": {"_type": "gradio.FileData"}}
    end = open_picture(client, picture)[-1]
    assert end["success"]
    url = end["output"]["data"][1]["url"]
    assert client.get(url).headers["content-type"] == "image/png"


def test_uploads_are_limited(client):
    content = b"x" * (21 << 20)
    answer = client.post("gradio_api/upload", files={"files": ("large.png", content)})
    assert answer.status_code == 413


def test_a_picture_that_is_none_is_named_and_escaped(client, tmp_path):
    path = tmp_path / "<b>no.png"
    path.write_bytes(b"no picture")
    with path.open("rb") as file:
        (sent,) = client.post("gradio_api/upload", files={"files": file}).json()
    end = open_picture(client, {"path": sent, "meta": {"_type": "gradio.FileData"}})[-1]
    assert not end["success"]
    assert "<b>" not in json.dumps(end)


def test_examples_are_handed_out_as_copies(client):
    config = client.get("config").json()
    (samples,) = [c["props"]["samples"] for c in config["components"] if c["type"] == "dataset"]
    assert len(samples) == 4
    for picture, *_ in samples:
        assert "llmdet_demo_" in picture["path"]
        assert client.get(f"gradio_api/file={picture['path']}").status_code == 200


def test_no_function_is_offered_as_an_interface(client):
    named = client.get("gradio_api/info").json()["named_endpoints"]
    assert named == {}


def test_a_port_that_is_taken_is_named(confident, page):
    port = int(page.rstrip("/").rpartition(":")[2])
    with (
        pytest.raises(ConfigError, match=rf"127.0.0.1:{port}, which is taken"),
        running_demo(confident, Serving(port=port)),
    ):
        pass
