"""What is behind an error: Beam, TensorFlow and TFX wrap what happened, one as text inside another.

Only the standard library, so that the command can explain an error that came before any heavy import.
"""

import errno
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from components.errors import Passing, printable

WORKER_ENDED = "a worker process of Beam ended before its work was done"
LONGEST = 300  # characters of a sentence
# The line that ends a stack: `package.module.SomeError: what happened`, or the bare name.
ENDS_STACK = re.compile(r"^((?:[A-Za-z_]\w*\.)*[A-Z]\w*)(?:: (.*))?$")
STACK = "Traceback (most recent call last):"
BECAUSE = "The above exception was the direct cause of the following exception:"
MEANWHILE = "During handling of the above exception, another exception occurred:"
# Lines that say where in TensorFlow something happened, not what.
PLACES = re.compile(
    r'^\s*File "|^Detected at node|Graph execution error|^<stack traces|\[\[\{\{node|^\d+ root error|'
    r"^\d+ (successful operations|derived errors)|^\s*[\^~]+\s*$"
)
# What stands around the words of a message: node and operation names, codes, Beam's transforms, bytes of data.
WRAPPING = re.compile(
    r"\{\{(function_)?node [^}]*\}\}|\[Op:[^\]]*\]|\bname:\s*$|\[while running '.*?'\]|^\s*\(\d+\) |"
    r"^\s*(INVALID_ARGUMENT|NOT_FOUND|INTERNAL|UNAVAILABLE|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|DATA_LOSS|UNKNOWN): |"
    r"^An error occurred while trying to apply the transformation: \"*"
)
# What Beam puts behind the words of whatever goes through a transform.
TRANSFORM = re.compile(r" ?\[while running '.*?'\]")
DATA = re.compile(r"""b(['"]).{40,}""")
LIBRARY = re.compile(r"\S*/site-packages/")


@dataclass(frozen=True)
class Link:
    """One error of a chain, or one that a worker process reported as text.

    Attributes:
      kind: name of its class, without the module.
      module: of the class; empty for one that is built in.
      text: what it says, in full.
      error: the exception itself; None where only its text got here.
      causes: whether it is the declared cause of the link before, the same once more, or a text inside that link.
    """

    kind: str
    module: str
    text: str
    error: BaseException | None = None
    causes: bool = True

    @property
    def number(self) -> int | None:
        """What the operating system calls the error (`errno`)."""
        return self.error.errno if isinstance(self.error, OSError) else None

    @property
    def said(self) -> str:
        """The message in one line."""
        return said(self.text)

    @property
    def sentence(self) -> str:
        """All of the message, without what Beam puts behind it: for errors of ours, which are sentences."""
        return TRANSFORM.sub("", self.text).strip()


def links(error: BaseException) -> list[Link]:
    """An error and everything that led to it, the outermost first."""
    found: list[Link] = []
    seen: set[int] = set()
    at: BaseException | None = error
    declared = True
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        kind = type(at)
        module = "" if kind.__module__ == "builtins" else kind.__module__
        found.append(Link(kind.__qualname__, module, str(at), at, declared))
        found += _reported(str(at))
        declared = at.__cause__ is not None
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    pairs = zip(found[:1] + found, found, strict=False)
    return [replace(link, causes=link.causes or _repeats(before, link)) for before, link in pairs]


def _repeats(outer: Link, inner: Link) -> bool:
    """Whether an error is another one again, as Beam raises it with the name of a transform behind what it said."""
    return outer.kind == inner.kind and outer.text.startswith(inner.text)


def _reported(text: str) -> list[Link]:
    """The errors at the ends of the stacks in a text, the last first: it is what came out of all."""
    if STACK not in text:
        return []
    stacks = text.split(STACK)[1:]
    found = []
    for number, stack in enumerate(stacks):
        body, separator = _partition(stack)
        if link := _end_of(body, separator == BECAUSE or number == len(stacks) - 1):
            found.append(link)
    return found[::-1]


def _partition(stack: str) -> tuple[str, str]:
    """What stands before the line that leads over to the next stack, and that line."""
    for separator in (BECAUSE, MEANWHILE):
        if separator in stack:
            return stack.partition(separator)[0], separator
    return stack, ""


def _end_of(stack: str, causes: bool) -> Link | None:
    """The error under the frames of one stack, with all lines of its message."""
    lines = stack.splitlines()
    for number, line in enumerate(lines):
        if line[:1].isspace() or not (match := ENDS_STACK.match(line)):
            continue
        module, _, kind = match[1].rpartition(".")
        text = "\n".join([match[2] or "", *lines[number + 1 :]])
        return Link(kind, module, text.strip(), None, causes)
    return None


def root(found: list[Link]) -> Link:
    """The link that says best what happened: the end of the declared causes.

    What was being handled when another error came up (`__context__`) often has nothing to do with it.
    """
    best = found[0]
    for link in found[1:]:
        if not link.causes:
            break
        best = link if link.text.strip() else best
    return best


def said(text: str) -> str:
    """The words of a message as one printable line of at most `LONGEST` characters; empty where it has none."""
    for line in text.split(STACK)[0].splitlines():
        if PLACES.search(line):
            continue
        line = LIBRARY.sub("", WRAPPING.sub("", line))
        line = " ".join(printable(DATA.sub("…", line)).split())
        if line:
            return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
    return ""


def brief(error: BaseException) -> str:
    """The cause of an error in a few words, for what stands in parentheses."""
    link = root(links(error))
    return link.said or link.kind


# ---- the machine's faults -------------------------------------------------------------------------------------------


def disk_full(found: list[Link]) -> Link | None:
    """The link that says that a disk, or a quota of one, is full."""
    texts = ("No space left on device", "Disk quota exceeded", "database or disk is full")
    return saying(found, texts, (errno.ENOSPC, errno.EDQUOT))


def out_of_memory(found: list[Link]) -> Link | None:
    """The link that says that memory, the processor's or the GPU's, did not suffice."""
    for link in found:
        if link.kind in ("MemoryError", "_ArrayMemoryError", "ArrowMemoryError", "ResourceExhaustedError"):
            return link
    return saying(found, ("Cannot allocate memory", "OOM when allocating", "out of memory"), (errno.ENOMEM,))


def worker_ended(found: list[Link]) -> Link | None:
    """The link that says that a worker process is gone: killed by the system, or crashed."""
    return saying(found, (WORKER_ENDED, "Channel closed prematurely"))


def job_ended(found: list[Link]) -> Link | None:
    """The link that says that a job on a cluster was cancelled, or failed and no worker said why."""
    link = saying(found, ("failed in state",))
    return link if link and STACK not in link.text else None


def too_many_files(found: list[Link]) -> Link | None:
    """The link that says that no further file could be opened."""
    return saying(found, ("Too many open files",), (errno.EMFILE, errno.ENFILE))


def not_permitted(found: list[Link]) -> Link | None:
    """The link that says that the system denied something, or that a disk is mounted read-only."""
    return saying(found, ("Permission denied", "Read-only file system"), (errno.EACCES, errno.EPERM, errno.EROFS))


def of_the_machine(error: BaseException) -> bool:
    """Whether no image can be blamed for an error."""
    tests = (disk_full, out_of_memory, worker_ended, job_ended, too_many_files, not_permitted)
    found = links(error)
    return isinstance(error, Passing) or any(test(found) for test in tests)


def saying(found: list[Link], texts: Sequence[str], numbers: Sequence[int] = ()) -> Link | None:
    """The first link with one of the texts or numbers (`errno`); not one that holds stacks, if there is a choice."""
    fitting = [link for link in found if link.number in numbers or any(text in link.text for text in texts)]
    return next((link for link in fitting if STACK not in link.text), fitting[0] if fitting else None)


def path_in(link: Link) -> str | None:
    """The absolute path or URI that an error is about, where it tells."""
    name: Any = getattr(link.error, "filename", None)
    if name is not None:
        return name.decode(errors="surrogateescape") if isinstance(name, bytes) else str(name)
    match = re.search(r"(?:[a-z][a-z0-9+.-]*:/)?/[^\s'\";:,*()]+", WRAPPING.sub("", link.text.split(STACK)[0]))
    return match[0] if match else None
