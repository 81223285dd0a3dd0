import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

from llmdet.datasets.captioning.backends import (
    OpenAICaptioner,
    Question,
    TransformersCaptioner,
)
from llmdet.errors import ConfigError, DataError


class Server:
    """An OpenAI-compatible endpoint on this machine; replies are scripted."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict, dict]] = []
        self.replies: list[tuple[int, object]] = []
        self.reply = self.describe_size
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                server.requests.append((dict(self.headers), {"path": self.path, **body}))
                status, answer = server.replies.pop(0) if server.replies else server.reply(body)
                text = answer if isinstance(answer, str) else json.dumps(answer)
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    @staticmethod
    def describe_size(body: dict) -> tuple[int, object]:
        picture, text = body["messages"][0]["content"]
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        width, height = Image.open(io.BytesIO(data)).size
        return 200, completion(f"{text['text']} {width}x{height}")


def completion(text: str | None) -> dict:
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def question(width: int = 8, prompt: str = "size?", attempt: int = 0) -> Question:
    return Question(Image.new("RGB", (width, 6)), prompt, attempt)


def test_an_endpoint_gets_picture_and_prompt_and_answers_come_in_order(server: Server) -> None:
    captioner = OpenAICaptioner(server.url + "/", "my-model", max_new_tokens=77)
    answers = captioner.answer([question(width) for width in range(1, 7)])
    assert answers == [f"size? {width}x6" for width in range(1, 7)]
    headers, request = server.requests[0]
    assert request["path"] == "/v1/chat/completions"
    assert request["model"] == "my-model"
    assert request["max_tokens"] == 77
    assert request["temperature"] == 0.0
    assert "Authorization" not in headers


def test_a_repeated_question_is_sampled(server: Server) -> None:
    OpenAICaptioner(server.url, "m").answer([question(attempt=1)])
    assert server.requests[0][1]["temperature"] > 0


def test_the_key_of_the_environment_is_sent(server: Server, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    OpenAICaptioner(server.url, "m").answer([question()])
    assert server.requests[0][0]["Authorization"] == "Bearer secret"


def test_a_busy_server_is_tried_again(server: Server) -> None:
    server.replies = [(503, "busy"), (429, "slow down")]
    assert OpenAICaptioner(server.url, "m", pause=0.01).answer([question()]) == ["size? 8x6"]
    assert len(server.requests) == 3


def test_a_refused_request_is_an_error_with_the_servers_words(server: Server) -> None:
    server.replies = [(404, "the model `m` does not exist")]
    with pytest.raises(ConfigError, match="status 404: the model `m` does not exist"):
        OpenAICaptioner(server.url, "m", pause=0.01).answer([question()])
    assert len(server.requests) == 1


def test_a_server_that_never_recovers_is_an_error(server: Server) -> None:
    server.reply = lambda body: (500, "out of memory")
    with pytest.raises(DataError, match="no answer in 5 attempts: status 500: out of memory"):
        OpenAICaptioner(server.url, "m", pause=0.001).answer([question()])


def test_an_unreachable_server_is_an_error(server: Server) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(DataError, match="no answer in 5 attempts"):
        OpenAICaptioner(server.url, "m", pause=0.001).answer([question()])


@pytest.mark.parametrize("reply", ["<html>", {"error": "x"}, {"choices": []}, [1]])
def test_nonsense_is_named(server: Server, reply: object) -> None:
    server.replies = [(200, reply)]
    with pytest.raises(DataError, match="not a completion"):
        OpenAICaptioner(server.url, "m").answer([question()])


def test_an_answer_without_content_is_empty(server: Server) -> None:
    server.replies = [(200, completion(None))]
    assert OpenAICaptioner(server.url, "m").answer([question()]) == [""]


def test_a_url_without_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="must begin with http"):
        OpenAICaptioner("localhost:8000", "m")


# ---------------------------------------------------------------------- transformers


@pytest.fixture(scope="module")
def vlm(tmp_path_factory) -> str:
    return tiny_llava(tmp_path_factory.mktemp("vlm"))


def tiny_llava(folder: Path) -> str:
    """A LLaVA of random weights: CLIP 16 px, Qwen2 with its own tokenizer and chat template."""
    import torch
    from transformers import (
        AutoTokenizer,
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
    )

    from llmdet.datasets.toy.models import tiny_qwen

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen(folder / "qwen"))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    config = LlavaConfig(
        text_config=Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=16,
            patch_size=8,
            projection_dim=32,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% for part in message.content %}"
        "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    )
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def colourful(seed: int, prompt: str) -> Question:
    import numpy as np

    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Question(Image.fromarray(pixels), prompt)


def test_a_model_of_transformers_answers_each_question_of_a_batch_as_it_would_alone(vlm) -> None:
    captioner = TransformersCaptioner(vlm, "cpu", max_new_tokens=12)
    questions = [
        colourful(0, "Describe the image in detail."),
        colourful(1, "A brown dog?"),
        colourful(2, "Describe the region in a phrase, on the left of the window."),
    ]
    together = captioner.answer(questions)
    assert together == [captioner.answer([single])[0] for single in questions]
    assert len(set(together)) > 1
    assert not any("Describe" in answer and "<|im_start|>" in answer for answer in together)


def test_first_and_repeated_questions_may_share_a_batch(vlm: str) -> None:
    captioner = TransformersCaptioner(vlm, "cpu", max_new_tokens=8)
    first = colourful(0, "A dog?")
    again = Question(first.image, first.prompt, attempt=1)
    answers = captioner.answer([again, first, again])
    assert answers[1] == captioner.answer([first])[0]


def test_a_model_that_does_not_load_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no vision-language model could be loaded"):
        TransformersCaptioner(str(tmp_path / "absent"), "cpu")
