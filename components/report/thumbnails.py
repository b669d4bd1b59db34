"""Pictures inside the page, within what the page may weigh."""

import base64
from dataclasses import dataclass

from components.report.facts import Picture


@dataclass(frozen=True)
class Thumbnail:
    """What an `img` element takes."""

    source: str
    width: int
    height: int


class Room:
    """What is left for pictures; who asks first gets it.

    Args:
      most: bytes.
      whole: the room that this one is a part of.
    """

    def __init__(self, most: int, whole: "Room | None" = None):
        self.left, self._whole = most, whole

    def take(self, picture: Picture | None) -> Thumbnail | None:
        """None where there is no picture, or no room for it."""
        if picture is None:
            return None
        source = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg).decode()
        if len(source) > self.left:
            return None
        self._use(len(source))
        return Thumbnail(source, picture.width, picture.height)

    def part(self, share: float) -> "Room":
        """At most that share of what is left now; what it does not use stays in the whole."""
        return Room(int(self.left * share), self)

    def _use(self, size: int) -> None:
        self.left -= size
        if self._whole:
            self._whole._use(size)
