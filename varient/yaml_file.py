"""YAML and JSON files as plain data: what JSON can hold, each key once, in bounds; one reader for all of them."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.constructor import ConstructorError

_MOST_BYTES = 2 ** 24
_MOST_VALUES = 100_000
"""Aliases written out; a few lines of them can stand for more values than any memory holds."""
_MOST_DIGITS = 63
"""Of an integer, in bits: what other readers of JSON keep."""

_DEEP = "nested too deeply"
_TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map"))
_MERGE = "tag:yaml.org,2002:merge"


class ConfigError(ValueError):
    """A config that cannot be used; the message names file, key and expectation."""


def read_yaml(path: Path) -> Any:
    """What a YAML or JSON file says: dicts, lists, strings, numbers, truth values and None.

    Raises:
        ConfigError: a file that is missing, unreadable, not UTF-8, not YAML, too large, with a key twice, or with
            values that JSON does not have; one line.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"{path}: larger than {_MOST_BYTES // 2 ** 20} MiB; this is no config")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text in UTF-8 (byte {error.start})") from None
    # JSON has tabs between its values, and none within them, where YAML has none at all.
    return parse_yaml(text.replace("\t", " ") if path.suffix == ".json" else text, str(path))


def parse_yaml(text: str, origin: str) -> Any:
    """The same of a text; ``origin`` opens the message.  Raises as `read_yaml`."""
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
    """A value for a message of one line, a long one with its middle left out."""
    return _SHORT.repr(value)


class _Loader(yaml.SafeLoader):
    """Refuses keys that occur twice, and every tag but those of JSON's values and of merges (<<)."""

    yaml_constructors: ClassVar = {tag: yaml.SafeLoader.yaml_constructors[tag] for tag in _TAGS}

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Here, because merges have not been written out yet: a key may override one that it merges."""
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
        """A key as JSON has it, where 16 and "16" are one."""
        if key.tag == _MERGE:
            return key.value
        name = self.construct_object(key) if isinstance(key, yaml.ScalarNode) else None
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ConstructorError(None, None, "a key must be a text, in quotes where it looks like something else, or "
                                               "an integer", key.start_mark)
        return str(name)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; what cannot be one is told with its line."""
        try:
            value = super().construct_object(node, deep)
        except (ValueError, KeyError):  # of !!int, !!float and !!bool before other words
            raise ConstructorError(None, None, f"{shortened(node.value)} cannot be read as "
                                               f"{node.tag.rpartition(':')[2]}", node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > _MOST_DIGITS:
            raise ConstructorError(None, None, f"an integer beyond {_MOST_DIGITS} bits", node.start_mark)
        return value

    def _refuse(self, node: yaml.Node) -> None:
        kind = node.tag.rpartition(":")[2]
        raise ConstructorError(None, None, f"a value of the kind {shortened(kind)}; there are texts (in quotes where "
                                           "they look like something else), numbers, true and false, null, lists and "
                                           "mappings", node.start_mark)


_Loader.add_constructor(None, _Loader._refuse)


def _count_values(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Values below and with a node, aliases written out; an alias of what it stands in has no end."""
    if id(node) in known:
        if (count := known[id(node)]) is None:
            raise ConstructorError(None, None, "an alias stands within what it repeats", node.start_mark)
        return count
    known[id(node)] = None
    children = node.value if isinstance(node, yaml.CollectionNode) else ()
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
    known[id(node)] = count = 1 + sum(_count_values(child, known) for child in children)
    if count > _MOST_VALUES:
        raise ConstructorError(None, None, f"stands for more than {_MOST_VALUES:,} values", node.start_mark)
    return count


def _in_one_line(error: yaml.YAMLError) -> str:
    kind = "" if isinstance(error, ConstructorError) else "not valid YAML: "
    if not isinstance(error, yaml.MarkedYAMLError):
        return kind + str(error).splitlines()[0]
    place = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
    return kind + place + " ".join((error.problem or error.context or "").split())


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
