"""Language models that answer: in this process, or behind an OpenAI-compatible endpoint.

Data engines ask them through one protocol, :class:`ChatModel`.
"""

from llmdet.chat.messages import ChatModel, ChatRequest, Message, Pace, Usage, ask

__all__ = ["ChatModel", "ChatRequest", "Message", "Pace", "Usage", "ask"]
