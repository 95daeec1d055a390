"""The released files behind the paper's numbers, with their published hashes: `released.yaml`, typed.

Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from varient.yaml_file import read_yaml


class ReleasedFile(BaseModel):
    """A file of somebody's, as it was published.

    Attributes:
        network: what it is imported as.
        sha256: of the file, or how it begins; None where none was published that we could look up.
        published: where it was.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    network: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{8,64}$")] | None = None
    published: str | None = None

    @model_validator(mode="after")
    def _says_where(self) -> ReleasedFile:
        if (self.sha256 is None) != (self.published is None):
            raise ValueError("a hash needs the place where it was published")
        return self


RELEASED = TypeAdapter(dict[str, ReleasedFile]).validate_python(read_yaml(Path(__file__).with_name("released.yaml")))
"""By name of the file."""

PUBLISHED_SHA256 = {name: file.sha256 for name, file in RELEASED.items() if file.sha256}
"""Hashes that were published, or how they begin, by name of the file."""


def released_as(network: str) -> str | None:
    """Name of the released file that a network of the paper's experiment is imported from; None for others."""
    return next((name for name, file in RELEASED.items() if file.network == network), None)


def why_unknown(network: str, sha256: str | None) -> str:
    """Why a file is not known to be the released one of a network, in words for its hash; empty where it is.

    Args:
        sha256: of the file; None where nobody says.
    """
    if sha256 is None:
        return "nothing says from which file"
    name = released_as(network)
    published = PUBLISHED_SHA256.get(name or "")
    if published is None:
        return f"SHA-256 {sha256[:8]}, and of {name} no published one is known" if name else (
            f"SHA-256 {sha256[:8]}, and the paper's systems have no such network")
    return "" if sha256.startswith(published) else f"SHA-256 {sha256[:8]}, but {name} has {published[:8]}"
