"""Pieces of sentences that people read on a terminal and in messages."""

from collections.abc import Sequence


def some(words: Sequence[str], most: int) -> str:
    """The first of some words, and how many more there are."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def counted(count: int, noun: str) -> str:
    """Such as `1 image` or `2 images`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")
