"""Result of one check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        subject: the setting, file or device that was checked.
        level: fine, note or problem; with a problem the experiment cannot run, or not as in the paper.
        text: what was found and, for a problem, what to do; one line.
        blocks: the problem would make job after job fail, and no other check of the workflow would stop them.
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
