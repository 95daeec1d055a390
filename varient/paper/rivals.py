"""Methods beside VARiant that save cache or layers, and what has been published about them: `rivals.yaml`, typed.

Imports neither torch nor pandas.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, model_validator

from varient.paper.published import PrintedScores, Text, Transcribed
from varient.yaml_file import parse_yaml

UNVERIFIED = "unverified"
"""Said of a number that we know from a third party alone."""
SHOWN_PAIR_BYTES, SHOWN_BATCH_SIZE = 4, 64
"""The convention that printed sizes are converted to: a key and a value channel in 16 bits each, 64 images."""


class PrintedMemory(Transcribed):
    """A published size of a KV cache, in MiB or as a share of all entries of the network."""

    printed: Text
    share: Annotated[float, Field(ge=0, le=1)] | None = None
    mib: Annotated[float, Field(ge=0)] | None = None
    pair_bytes: Literal[4, 6, 8] | None = Field(None, description="bytes of a key and a value channel in `mib`")
    depth: Annotated[int, Field(ge=1)] = 30
    batch_size: Annotated[int, Field(ge=1)] = SHOWN_BATCH_SIZE

    @model_validator(mode="after")
    def _one_size(self) -> PrintedMemory:
        if (self.share is None) == (self.mib is None) or (self.mib is None) != (self.pair_bytes is None):
            raise ValueError(f"{self.printed}: needs either 'share', or 'mib' with 'pair_bytes'")
        return self

    def shown_mib(self, all_entries_mib: float) -> float:
        """The same size in the convention of the table.

        Args:
            all_entries_mib: all entries of the network of `depth` layers in that convention.
        """
        if self.share is not None:
            return self.share * all_entries_mib
        assert self.mib is not None and self.pair_bytes is not None  # by the validator
        return self.mib * SHOWN_PAIR_BYTES / self.pair_bytes * SHOWN_BATCH_SIZE / self.batch_size


class RivalNumber(PrintedScores):
    """Numbers that one place prints for one setting of a method."""

    seen_in: Literal["original", "abstract", "third-party"]
    protocol: Text | None = Field(None, description="where it is not VAR-d30 under ADM's protocol")
    kv: PrintedMemory | None = None

    @model_validator(mode="after")
    def _says_something(self) -> RivalNumber:
        if self.fid is None and self.kv is None:
            raise ValueError(f"{self.source} prints neither a FID nor a size of the cache")
        return self

    @property
    def cell(self) -> str:
        """FID / IS, or else the note, and where they stand: "2.00 / 296.8 (FPQVAR, ...)"; empty for a size alone."""
        values = " / ".join(filter(None, (self.fid, self.inception_score)))
        place = self.source, self.setting, self.protocol, self.note if values else None, self.unverified
        return f"{values or self.note} ({', '.join(filter(None, place))})" if values or self.note else ""

    @property
    def kv_mark(self) -> str:
        """The cache as printed, and whether we have seen it there; empty without one."""
        return ", ".join(filter(None, (self.kv.printed, self.unverified))) if self.kv else ""

    @property
    def unverified(self) -> str:
        """`UNVERIFIED` where we have not seen it, else empty."""
        return UNVERIFIED if self.seen_in == "third-party" else ""


class Rival(Transcribed):
    """A method.

    Attributes:
        id: our system at the paper's size that stands for it.
        published_as: the published method; None for ours.
        training: what it needs beside released weights.
        ours: how our system differs from the published method; None where there is no system.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None
    method: Text
    published_as: Text | None
    training: Literal["none", "calibration", "supernet", "yes"]
    ours: Text | None
    numbers: tuple[RivalNumber, ...]

    @model_validator(mode="after")
    def _ours_is_described(self) -> Rival:
        if (self.id is None) != (self.ours is None):
            raise ValueError(f"{self.method}: 'ours' describes the system 'id', so there are both or neither")
        return self


@cache
def rivals() -> tuple[Rival, ...]:
    """All methods, in the order of the table.

    Raises:
        ValueError: an entry that does not fit the models (pydantic's ValidationError), or two of one system.
    """
    return parse(Path(__file__).with_name("rivals.yaml").read_text("utf-8"))


def parse(text: str) -> tuple[Rival, ...]:
    """Entries of such a file.  Raises as `rivals`."""
    entries = TypeAdapter(tuple[Rival, ...]).validate_python(parse_yaml(text, "rivals.yaml"))
    named = [entry.id for entry in entries if entry.id]
    if twice := {name for name in named if named.count(name) > 1}:
        raise ValueError(f"two entries for {', '.join(sorted(twice))}")
    return entries
