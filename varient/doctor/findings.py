"""What was looked at, and what was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        subject: a setting, a file, a device.
        level: a problem is something that the paper's experiment cannot be run with as it is.
        text: what was found, and of a problem what to do; one line.
        blocks: jobs that meet it would fail one after the other, and nothing else of the workflow would stop them.
    """

    subject: str
    level: Level
    text: str
    blocks: bool = False


def fine(subject: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(subject, "ok", text)


def note(subject: str, text: str) -> Finding:
    """Worth knowing."""
    return Finding(subject, "note", text)


def problem(subject: str, text: str, *, blocks: bool = False) -> Finding:
    """Something to do."""
    return Finding(subject, "problem", " ".join(text.split()), blocks)
