"""Names that the language parts of published systems have in their files: one module a system."""

from .others import OTHERS, System, system_of

__all__ = ["OTHERS", "System", "system_of"]
