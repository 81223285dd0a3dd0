"""The openai client against a server on this machine: order, keys, retries, time-outs, nonsense."""

import threading

import pytest
from PIL import Image

from llmdet.chat import ChatRequest, Message, ask
from llmdet.chat.endpoint import RETRIES, EndpointChat
from llmdet.errors import ConfigError, DataError
from llmdet.testing.chat import ChatServer, completion


def request(width: int = 8, prompt: str = "size?", temperature: float = 0.0) -> ChatRequest:
    return ask(prompt, Image.new("RGB", (width, 6)), temperature=temperature)


def test_an_endpoint_gets_picture_and_prompt_and_answers_come_in_order(
    chat_server: ChatServer,
) -> None:
    chat = EndpointChat(chat_server.url + "/", "my-model", max_new_tokens=77)
    answers = chat.answer([request(width) for width in range(1, 7)])
    assert answers == [f"size? {width}x6" for width in range(1, 7)]
    _, sent = chat_server.requests[0]
    assert sent["path"] == "/v1/chat/completions"
    assert (sent["model"], sent["max_tokens"], sent["temperature"]) == ("my-model", 77, 0.0)
    assert chat.identity == {"url": chat_server.url, "model": "my-model", "max_new_tokens": 77}


def test_turns_and_several_pictures_are_sent_as_they_stand(chat_server: ChatServer) -> None:
    images = (Image.new("RGB", (3, 4)), Image.new("RGB", (5, 6)))
    turns = (Message("system", "Be brief."), Message("user", "both?", images))
    assert EndpointChat(chat_server.url, "m").answer([ChatRequest(turns, 0.5)]) == ["both? 3x4 5x6"]
    _, sent = chat_server.requests[0]
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]
    assert sent["temperature"] == 0.5


def test_no_more_requests_are_under_way_than_permitted(chat_server: ChatServer) -> None:
    under_way, most, lock = 0, 0, threading.Event()

    def count(body: dict) -> tuple[int, object]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        lock.wait(0.05)
        under_way -= 1
        return 200, completion("yes")

    chat_server.reply = count
    EndpointChat(chat_server.url, "m", concurrency=2).answer([request()] * 6)
    assert most == 2


def test_only_what_is_sampled_has_a_seed(chat_server: ChatServer) -> None:
    chat = EndpointChat(chat_server.url, "m")
    chat.answer([request()])
    chat.answer([ask("size?", temperature=0.7, seed=3)])
    first, second = (body for _, body in chat_server.requests)
    assert "seed" not in first
    assert second["seed"] == 3


def test_tokens_are_counted_where_the_server_names_them(chat_server: ChatServer) -> None:
    tokens = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    chat_server.replies = [(200, completion("a") | {"usage": tokens}), (200, completion("b"))]
    chat = EndpointChat(chat_server.url, "m")
    for _ in range(2):
        chat.answer([request()])
    usage = chat.usage
    assert (usage.requests, usage.prompt_tokens, usage.answer_tokens) == (2, 9, 4)


def test_the_key_of_the_environment_is_sent(chat_server: ChatServer, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    EndpointChat(chat_server.url, "m").answer([request()])
    assert chat_server.requests[0][0]["authorization"] == "Bearer secret"


@pytest.mark.parametrize("statuses", [(503, 429), (500, 408), (429,) * RETRIES])
def test_a_busy_server_is_tried_again(chat_server: ChatServer, statuses: tuple[int, ...]) -> None:
    chat_server.replies = [(status, "busy") for status in statuses]
    assert EndpointChat(chat_server.url, "m").answer([request()]) == ["size? 8x6"]
    assert len(chat_server.requests) == len(statuses) + 1


def test_a_silent_server_is_tried_again_after_the_time_out(chat_server: ChatServer) -> None:
    chat_server.replies = [2.0]
    assert EndpointChat(chat_server.url, "m", timeout=0.2).answer([request()]) == ["size? 8x6"]
    assert len(chat_server.requests) == 2


def test_a_server_that_stays_silent_is_an_error(chat_server: ChatServer, monkeypatch) -> None:
    monkeypatch.setattr("llmdet.chat.endpoint.RETRIES", 1)
    chat_server.replies = [1.0, 1.0]
    with pytest.raises(DataError, match=r"no answer in 2 attempts: .*[Tt]ime"):
        EndpointChat(chat_server.url, "m", timeout=0.1).answer([request()])


@pytest.mark.parametrize("status", [400, 401, 404])
def test_a_refused_request_is_an_error_with_the_servers_words(
    chat_server: ChatServer, status: int
) -> None:
    chat_server.replies = [(status, "the model `m` does not exist")]
    with pytest.raises(ConfigError, match=f"status {status}: the model `m` does not exist"):
        EndpointChat(chat_server.url, "m").answer([request()])
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize("status", [429, 500])
def test_a_server_that_never_recovers_is_an_error(chat_server: ChatServer, status: int) -> None:
    chat_server.reply = lambda body: (status, "out of memory")
    expected = f"no answer in {RETRIES + 1} attempts, status {status}: out of memory"
    with pytest.raises(DataError, match=expected):
        EndpointChat(chat_server.url, "m").answer([request()])
    assert len(chat_server.requests) == RETRIES + 1


def test_an_unreachable_server_is_an_error(chat_server: ChatServer, monkeypatch) -> None:
    monkeypatch.setattr("llmdet.chat.endpoint.RETRIES", 1)
    chat_server.close()
    with pytest.raises(DataError, match=r"no answer in 2 attempts: .*refused"):
        EndpointChat(chat_server.url, "m").answer([request()])


@pytest.mark.parametrize("reply", ["<html>", "{", {"error": "x"}, {"choices": []}, [1]])
def test_nonsense_is_named(chat_server: ChatServer, reply: object) -> None:
    chat_server.replies = [(200, reply)]
    with pytest.raises(DataError, match=r"not a completion|nonsense"):
        EndpointChat(chat_server.url, "m").answer([request()])


def test_an_answer_without_content_is_empty(chat_server: ChatServer) -> None:
    chat_server.replies = [(200, completion(None))]
    assert EndpointChat(chat_server.url, "m").answer([request()]) == [""]


def test_half_a_character_of_an_answer_is_replaced(chat_server: ChatServer) -> None:
    """A server that cuts by tokens may cut a pair of surrogates, and JSON lets it through."""
    chat_server.replies = [(200, completion("a dog \ud83d"))]
    assert EndpointChat(chat_server.url, "m").answer([request()]) == ["a dog ?"]


def test_a_url_without_scheme_is_refused() -> None:
    with pytest.raises(ConfigError, match="must begin with http"):
        EndpointChat("localhost:8000", "m")


def test_a_missing_client_is_named_with_its_extra(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(ConfigError, match=r"pip install 'llmdet\[chat\]'"):
        EndpointChat("http://localhost", "m")
