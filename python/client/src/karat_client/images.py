"""Images that are scored, or that are shown before what is scored."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os


@dataclass(frozen=True)
class Image:
    """An image, of models that see: a response, or a part of a turn.

    `Image.file("cat.png")`, `Image.of(png_bytes)`, or `Image.url("https://…")` where the operator lets the server fetch
    from that host. The server tells by the bytes what a file is: a PNG, JPEG, WebP or GIF, whose first frame counts.
    """

    uri: str = field(repr=False)
    """What a request carries: a data URI, or a URL."""

    @classmethod
    def of(cls, data: bytes) -> Image:
        """The image in a file of these bytes."""
        return cls(f"data:image/*;base64,{base64.b64encode(data).decode()}")

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> Image:
        """The image in a file. Raises OSError when it can't be read."""
        return cls.of(Path(path).read_bytes())

    @classmethod
    def url(cls, url: str) -> Image:
        """The image behind a URL, which the server fetches."""
        return cls(url)

    def as_part(self) -> dict[str, Any]:
        """The image as a part of a turn."""
        return {"type": "image", "image": self.uri}
