"""Reader of JSON files: limited in size, and checked against a model before anything uses their content."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from varient.yaml_file import shortened

MOST_BYTES = 2 ** 24
"""Limit of the size of a file; the largest ones, lists of hashes, are a tenth of it."""

Model = TypeVar("Model", bound=BaseModel)


def read_model(path: Path, model: type[Model], error: type[ValueError], what: str) -> Model:
    """Content of a JSON file as a model; numbers and texts are not converted into each other.

    Args:
        error: what is raised, with a message of one line that names the file, the key and what is expected there.
        what: what the file is expected to be, for the message.

    Raises:
        FileNotFoundError: no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as problem:
        raise error(f"{path}: {what} cannot be read ({problem.strerror})") from None
    try:
        return parse_model(data, model)
    except ValueError as problem:
        raise error(f"{path}: not {what}: {problem}") from None


def parse_model(data: bytes, model: type[Model]) -> Model:
    """JSON text, UTF-8, as a model.

    Raises:
        ValueError: one line with the key and what is expected there.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"larger than {MOST_BYTES // 2 ** 20} MiB")
    try:
        data.decode("utf-8")
        return model.model_validate_json(data, strict=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text (byte {error.start})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = shortened(".".join(map(str, first["loc"])) or "file")[1:-1]
        raise ValueError(f"{key}: {' '.join(first['msg'].removeprefix('Value error, ').split())[:300]}") from None
