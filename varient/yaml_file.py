"""Reader of YAML and JSON files: values that JSON can represent, no duplicate keys, limited size."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

_MOST_BYTES = 2 ** 24
_MOST_VALUES = 100_000
"""Limit of the number of values with aliases expanded: a few lines of nested aliases can exceed any memory."""
_MOST_BITS = 63
"""Limit of the size of an integer in bits, which other JSON readers keep exactly."""
_LONGEST_IN_BASE_60 = 100
"""Limit of the characters of a number in base 60, such as 1:30:00.  PyYAML takes hours for very long ones, and a few
hundred characters are beyond a float."""

_DEEP = "nested too deeply"
_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"


class ConfigError(ValueError):
    """A config cannot be used; the message names the file, the key and what is expected."""


def read_yaml(path: Path) -> Any:
    """Content of a YAML or JSON file: dicts, lists, strings, numbers, booleans and None.

    Raises:
        ConfigError: the file is missing, unreadable, not UTF-8, not YAML or too large, or it has duplicate keys or
            values that JSON cannot represent; the message is one line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path}: larger than {_MOST_BYTES // 2 ** 20} MiB; this is not a config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    # JSON allows tabs between values (never inside them), YAML does not.
    return parse_yaml(text.replace("\t", " ") if path.suffix == ".json" else text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """Parse a text as `read_yaml` does; error messages begin with ``origin``.

    Raises:
        ConfigError: as `read_yaml`.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count_values(node, {})
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: {_in_one_line(error)}") from None
    except RecursionError:
        raise ConfigError(f"{origin}: not valid YAML: {_DEEP}") from None


def shortened(value: object) -> str:
    """The `repr` of a value for a one-line message; the middle of a long one is replaced by "..."."""
    return _SHORT.repr(value)


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys and all tags except those of JSON values and of merge keys (<<)."""

    yaml_constructors: ClassVar = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Check for duplicate keys before merge keys are expanded: a key may override a merged one."""
        node = super().compose_mapping_node(anchor)
        first: dict[str, int] = {}
        for key, _ in node.value:
            name, line = self._name_of(key), key.start_mark.line + 1
            if name in first:
                raise ConstructorError(None, None, f"key {shortened(name)} is given twice, in line {first[name]} and "
                                                   f"in line {line}")
            first[name] = line
        return node

    def _name_of(self, key: yaml.Node) -> str:
        """A key as JSON text, where 16 and "16" are the same."""
        if key.tag == _MERGE:
            return key.value
        name = self.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ConstructorError(None, None, "a key must be a string (quoted if it looks like another type) or an "
                                               "integer", key.start_mark)
        return str(name)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct a value; the error for an invalid one names its line."""
        if node.tag in _NUMBERS and ":" in node.value and len(node.value) > _LONGEST_IN_BASE_60:
            raise ConstructorError(None, None, f"a number in base 60 of {len(node.value):,} characters; quote it if it "
                                               "is text", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError):  # explicit tags !!int, !!float and !!bool on invalid text
            raise ConstructorError(None, None, f"{shortened(node.value)} cannot be read as "
                                               f"{node.tag.rpartition(':')[2]}", node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            raise ConstructorError(None, None, f"an integer beyond {_MOST_BITS} bits", node.start_mark)
        return value

    def _refuse(self, node: yaml.Node) -> None:
        kind = node.tag.rpartition(":")[2]
        raise ConstructorError(None, None, f"unsupported value type {shortened(kind)}; supported are strings (quoted "
                                           "if they look like another type), numbers, true, false, null, lists and "
                                           "mappings", node.start_mark)


_Loader.add_constructor(None, _Loader._refuse)


def _count_values(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Number of values in a node including itself, with aliases expanded; recursive aliases are refused."""
    if id(node) in known:
        if (count := known[id(node)]) is None:
            raise ConstructorError(None, None, "an alias refers to a value that contains it", node.start_mark)
        return count
    known[id(node)] = None
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    known[id(node)] = count = 1 + sum(_count_values(child, known) for child in children)
    if count > _MOST_VALUES:
        raise ConstructorError(None, None, f"expands to more than {_MOST_VALUES:,} values", node.start_mark)
    return count


def _in_one_line(error: yaml.YAMLError) -> str:
    kind = "" if isinstance(error, ConstructorError) else "not valid YAML: "
    if not isinstance(error, yaml.MarkedYAMLError):
        return kind + str(error).splitlines()[0]
    place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    return kind + place + " ".join((error.problem or error.context or "").split())


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
