"""Keys of a document by dotted path: ``meta.time`` is a key of that name, else ``time`` in the object ``meta``."""

from __future__ import annotations

ABSENT = object()
"""What a path finds where there is nothing; JSON's null is something."""


class Path:
    """One dotted path.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> Path("meta.time").get({"meta": {"time": 5}}), Path("meta.time").get({"meta.time": 6})
    (5, 6)
    """

    __slots__ = ("_key", "_parents", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        *self._parents, self._key = text.split(".")

    def __str__(self) -> str:
        return self.text

    def take(self, document: object) -> object:
        """Remove what stands there and return it, or ``ABSENT``."""
        if type(document) is not dict:
            return ABSENT
        found: object = document.pop(self.text, ABSENT)
        if found is ABSENT and self._parents:
            parent = self._parent(document)
            found = parent.pop(self._key, ABSENT) if parent is not None else ABSENT
        return found

    def get(self, document: object) -> object:
        """What stands there, or ``ABSENT``."""
        if type(document) is not dict:
            return ABSENT
        found: object = document.get(self.text, ABSENT)
        if found is ABSENT and self._parents:
            parent = self._parent(document)
            found = parent.get(self._key, ABSENT) if parent is not None else ABSENT
        return found

    def _parent(self, document: object) -> dict[str, object] | None:
        for key in self._parents:
            document = document.get(key) if type(document) is dict else None
        return document if type(document) is dict else None
