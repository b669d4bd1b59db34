"""The errors a person can act on; each carries the exit code that the command documents."""


class GraftError(Exception):
    """One sentence for the person: what was wrong, what is allowed, what was received, what to do."""

    exit_code = 1


class UsageError(GraftError):
    """A wrong option, configuration or path, or weights that cannot be had."""

    exit_code = 2


class DataRefused(GraftError):
    """The images cannot make a classifier: none usable, fewer than two classes, or over a budget."""

    exit_code = 3


class OutputBusy(GraftError):
    """Another run holds the output folder."""

    exit_code = 5
