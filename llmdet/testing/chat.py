"""Language models of tests: an endpoint on this machine, and a tiny model of transformers."""

from __future__ import annotations

import base64
import io
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image

#: Status and body, or a number of seconds to stay silent.
Reply = tuple[int, object] | float


class ChatServer:
    """An OpenAI-compatible endpoint on this machine.

    Replies are scripted; without a script it answers with the text and the picture's size.

    A reply is (status, body), or a number of seconds to stay silent.

    Attributes:
        url: its base.
        requests: headers and body of all requests so far.
        replies: the next ones.
        reply: body -> reply, once none of them is left.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], dict[str, Any]]] = []
        self.replies: list[Reply] = []
        self.reply: Callable[[dict[str, Any]], Reply] = describe_size
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
        """Stop serving."""
        self.http.shutdown()
        self.http.server_close()


def describe_size(body: dict[str, Any]) -> Reply:
    """The text of the last turn, and the sizes of its pictures."""
    *pictures, text = body["messages"][-1]["content"]
    sizes = []
    for picture in pictures:
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        sizes.append("{}x{}".format(*Image.open(io.BytesIO(data)).size))
    return 200, completion(" ".join([text["text"], *sizes]))


def completion(text: str | None) -> dict[str, Any]:
    """What a server answers."""
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": choices,
    }


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
        image_token_index=len(tokenizer) - 1,
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


def tiny_similarity(folder: Path) -> str:
    """A CLIP of random weights, both of its halves, with a tokenizer; returns the folder."""
    import torch
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel

    from llmdet.datasets.toy.models import tiny_qwen

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen(folder / "qwen"))
    half = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    config = CLIPConfig(
        text_config={
            **half,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 64,
            "eos_token_id": tokenizer.pad_token_id,  # what a text is read at: its end
        },
        vision_config={**half, "image_size": 16, "patch_size": 8},
        projection_dim=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
