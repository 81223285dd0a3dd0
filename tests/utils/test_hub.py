"""Whether the hub is there is asked once, and what it cannot give is looked for here."""

import socket

import pytest
from huggingface_hub import constants

from llmdet.utils import hub


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """As without HF_HUB_OFFLINE, which all tests run with, and without a proxy."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    hub.hub_is_reachable.cache_clear()
    yield
    hub.hub_is_reachable.cache_clear()


def test_without_a_network_models_are_looked_for_in_the_cache_alone(monkeypatch, tmp_path):
    asked = []

    def refuse(address, timeout):
        asked.append(address)
        raise OSError("no route")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for _ in range(2):
        assert hub.hub_options("bert-base-uncased") == {"local_files_only": True}
    assert asked == [("huggingface.co", 443)]
    assert hub.hub_options(tmp_path) == {}


def test_a_proxy_is_left_to_answer(monkeypatch):
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("asked"))
    assert hub.hub_options("bert-base-uncased") == {}
