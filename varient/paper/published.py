"""Where the systems beside ours come from, and what others have published about them: `published.yaml`, typed.

Published numbers are text, digit for digit as printed; none was measured by us.  The paper's own tables are in
`varient.paper` and are not repeated.  Imports neither torch nor pandas.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from varient.yaml_file import parse_yaml

Text = Annotated[str, Field(min_length=1)]
Printed = Annotated[str, Field(pattern=r"^(\d+(\.\d+)?|\.\d+)$")]
"""A number as text: "2.10" keeps its digits."""

VALUES = ("fid", "sfid", "inception_score", "precision", "recall", "speedup", "latency_s", "images_per_s", "memory_mb",
          "kv_cache_mb", "parameters_mb", "running_mb", "gflops")
"""The quantities of a `Number`."""


class Transcribed(BaseModel):
    """Something that was printed elsewhere: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Repository(Transcribed):
    """Public code of a system; without a commit it could not be read."""

    url: Annotated[str, Field(pattern=r"^https://")]
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{7,40}$")] | None
    committed: date | None
    licence: Text | None


class WeightFile(Transcribed):
    """A released file of weights."""

    file: Text
    at: Annotated[str, Field(pattern=r"^https://", description="page or file to get it from")]
    parameters: Annotated[int, Field(ge=1, strict=True)]
    what: Text


class Protocol(Transcribed):
    """How the system's own authors sample, in words and as settings under the names of their scripts."""

    words: Text
    settings: dict[str, Any]


class PrintedScores(Transcribed):
    """Scores that one place prints for one setting of a system."""

    source: Text = Field(description="paper and table, or README")
    setting: Text | None = Field(None, description="where it differs from others of the source")
    note: Text | None = None
    fid: Printed | None = None
    inception_score: Printed | None = Field(None, alias="is")
    precision: Printed | None = None
    recall: Printed | None = None


class Number(PrintedScores):
    """Numbers that one place prints for one setting.

    Units are in the names; "MB" is as printed (2^20 bytes where arithmetic can tell).
    """

    protocol: Literal["authors", "code-table1", "remeasured"] = Field(description="whose measurement; see the file")
    seen_in: Literal["original", "notes", "second-hand"] = Field(description="what we read")
    differs_from_table2: tuple[Text, ...] = Field((), description="columns in which VARiant's Table 2 says otherwise")
    sfid: Printed | None = None
    speedup: Printed | None = None
    latency_s: Printed | None = None
    images_per_s: Printed | None = None
    memory_mb: Printed | None = None
    kv_cache_mb: Printed | None = None
    parameters_mb: Printed | None = None
    running_mb: Printed | None = None
    gflops: Printed | None = None

    @property
    def values(self) -> dict[str, str]:
        """What is printed, by name."""
        return {name: value for name in VALUES if (value := getattr(self, name)) is not None}

    @model_validator(mode="after")
    def _says_something(self) -> Number:
        if not self.values:
            raise ValueError(f"{self.source} prints no number")
        if missing := set(self.differs_from_table2) - set(self.values):
            raise ValueError(f"{', '.join(sorted(missing))} cannot differ: no such number")
        return self

    def cell(self) -> str:
        """FID / IS (or FID alone) and where they stand: "2.27 / 278.24 (DiT README, 250 steps)"."""
        place = [self.source, *([self.setting] if self.setting else []),
                 *(["second-hand"] if self.seen_in == "second-hand" else [])]
        return f"{' / '.join(filter(None, (self.fid, self.inception_score)))} ({', '.join(place)})"


class Source(Transcribed):
    """A system at the size of its authors.

    Attributes:
        id: of the system, as in `varient.cost.paper_systems`.
        numbers: what has been published; the first of a protocol with a FID stands for the protocol.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    name: Text
    repository: Repository
    weights: tuple[WeightFile, ...]
    protocol: Protocol
    numbers: tuple[Number, ...]

    def cell(self) -> str:
        """One line for a table: what the authors say, then what CoDe's Table 1 says; empty without either."""
        of_protocol = {number.protocol: number for number in reversed(self.numbers) if number.fid}
        return "; ".join(of_protocol[protocol].cell() for protocol in ("authors", "code-table1")
                         if protocol in of_protocol)


def published(system_id: str) -> Source | None:
    """What is published about the system of that id; None where we know of nothing."""
    return sources().get(system_id)


@cache
def sources() -> dict[str, Source]:
    """All entries of the file, by id.

    Raises:
        ValueError: an entry that does not fit the models (pydantic's ValidationError), or two of one id.
    """
    return parse(Path(__file__).with_name("published.yaml").read_text("utf-8"))


def parse(text: str) -> dict[str, Source]:
    """Entries of such a file.  Raises as `sources`."""
    entries = TypeAdapter(tuple[Source, ...]).validate_python(parse_yaml(text, "published.yaml"))
    found: dict[str, Source] = {}
    for entry in entries:
        if entry.id in found:
            raise ValueError(f"two entries for {entry.id}")
        found[entry.id] = entry
    return found
