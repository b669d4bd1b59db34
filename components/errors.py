"""The errors a person can act on; each carries the exit code that the command documents."""

from typing import Any

from components.data_findings import Findings


class GraftError(Exception):
    """One sentence for the person: what was wrong, what is allowed, what was received, what to do.

    Attributes:
      exit_code: as documented for the command.
      may_pass: whether the same may go well a while later although nobody mended anything.
    """

    exit_code = 1
    may_pass = False


class Passing(GraftError):
    """It was the machine's fault, or that of what else went on at that moment."""

    may_pass = True


class UsageError(GraftError):
    """A wrong option, configuration or path, or weights that cannot be had."""

    exit_code = 2


class DataRefused(GraftError):
    """The images cannot make a classifier: none usable, fewer than two classes, or over a budget.

    Attributes:
      quarantined: records with `path` and `reason` of the files that were kept out, where it came to that.
      found: by the data gate, where it was that which refused them.
    """

    exit_code = 3

    def __init__(self, message: str):
        super().__init__(message)
        self.quarantined: list[dict[str, Any]] = []
        self.found: Findings | None = None


class ImageFailed(GraftError):
    """An image on which a step failed.

    Attributes:
      image: its path in the data set; None where only its key is known.
      happened: the sentence without the image, such as `cannot be decoded (not a PNG file).`
      key: SHA-256 of the file as it was ingested, hexadecimal.
      artifact: folder of the artifact that holds the copy on which the step failed; None for the person's own file.
      damaged: whether that copy is not what an earlier step wrote.
    """

    def __init__(self, message: str):
        # One argument, as Beam makes an error anew with a longer one.
        super().__init__(message)
        self.image: str | None = None
        self.happened = ""
        self.key: str | None = None
        self.artifact: str | None = None
        self.damaged = False


class OutputBusy(GraftError):
    """Another run holds the output folder."""

    exit_code = 5


def printable(text: str) -> str:
    """A file's name as one line: a line break or an escape sequence in it must not pass for output of this program."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
