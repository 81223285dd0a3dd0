"""The models of an engine: what a command line or a config says about the model of each role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from llmdet.chat import ChatModel
from llmdet.errors import ConfigError
from llmdet.utils.suggest import did_you_mean

BACKENDS = ("transformers", "openai")


@dataclass(frozen=True)
class ModelSettings:
    """One model.

    Attributes:
        backend: ``transformers``, in this process, or ``openai``, behind an endpoint.
        model: folder or name.
        url: base of the endpoint, ending in ``/v1``.
        device: where a model in this process runs.
        max_new_tokens: the longest answer.
        batch_size: requests that a model in this process answers together, or that are sent to
            an endpoint at a time.
        price: of a million tokens of prompts, and of answers, for the cost that is shown.

    Raises:
        ConfigError: the backend does not exist, or an endpoint has no url.
    """

    backend: str
    model: str
    url: str | None = None
    device: str = "cuda"
    max_new_tokens: int = 512
    batch_size: int = 8
    price: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigError(f"backend={self.backend!r}: {did_you_mean(self.backend, BACKENDS)}")
        if self.backend == "openai" and not self.url:
            raise ConfigError(f"the model {self.model!r} of backend openai needs a url")

    def build(self) -> ChatModel:
        """Load the model, or get ready to ask its endpoint."""
        if self.backend == "openai":
            from llmdet.chat.endpoint import EndpointChat

            assert self.url is not None
            return EndpointChat(
                self.url, self.model, self.max_new_tokens, concurrency=self.batch_size
            )
        from llmdet.chat.local import LocalChat

        return LocalChat(self.model, self.device, self.max_new_tokens, batch_size=self.batch_size)


def build_models(settings: Mapping[str, ModelSettings]) -> dict[str, ChatModel]:
    """Role -> model; roles with the same settings share one."""
    built = {one: one.build() for one in dict.fromkeys(settings.values())}
    return {role: built[one] for role, one in settings.items()}


def read_model_settings(
    config: Mapping[str, Any], roles: Iterable[str]
) -> dict[str, ModelSettings]:
    """The models of a config: its ``models`` holds fields of :class:`ModelSettings` by role.

    Args:
        config: from :func:`llmdet.utils.config.load_config`; it may name further roles.
        roles: those that are needed.

    Raises:
        ConfigError: a role is missing, or a field is missing or unknown.
    """
    models = config.get("models", {})
    roles = list(roles)
    for role in roles:
        if role not in models:
            raise ConfigError(
                f"The config's models have no {role!r}; the roles are {', '.join(roles)}."
            )
    return {role: _settings_of(dict(models[role]), f"models.{role}") for role in roles}


def _settings_of(values: dict[str, Any], where: str) -> ModelSettings:
    known = [field.name for field in fields(ModelSettings)]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where}.{name}: {did_you_mean(name, known)}")
    for name in ("backend", "model"):
        if name not in values:
            raise ConfigError(f"{where} has no {name!r}")
    if values.get("price") is not None:
        values["price"] = tuple(values["price"])
    return ModelSettings(**values)
