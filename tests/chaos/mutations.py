"""Seeded damage of files: of any bytes, of texts, and of what JSON, .npz, safetensors and torch files hold.

Each function takes the content and a random number generator and returns the damaged content.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

import numpy as np
import torch
import yaml
from torch import nn

Damage = Callable[[bytes, Random], bytes]

HUGE = 10 ** 400
DEEP: Any = None
for _ in range(300):
    DEEP = [DEEP]
HOSTILE = [None, True, False, 0, 1, 2, 3, 7, -1, 10 ** 6, 10 ** 9, 2 ** 31, 2 ** 63, HUGE, -HUGE,
           0.5, -0.5, 3.7, 1e-300, 5e-324, 1e300, float("nan"), float("inf"), -float("inf"),
           "", "x", "x" * 100_000, "a\n\nb", "\0", "é\u2028", "{a}", "$(touch x)", ".. include:: /etc/passwd",
           "2026-01-01", "1e5", "0x10", "\ud800",
           [], {}, [[]], [1] * 1000, ["x", 1, None], {"a": 1}, {"1": {"2": {"3": 4}}}, DEEP]


# Any bytes

def flip_bit(data: bytes, draw: Random) -> bytes:
    return flip_bytes(data, draw, 1)


def flip_bytes(data: bytes, draw: Random, count: int | None = None) -> bytes:
    changed = bytearray(data)
    for _ in range(count or draw.randint(2, 20)):
        changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def set_bytes(data: bytes, draw: Random) -> bytes:
    changed, at = bytearray(data), draw.randrange(len(data))
    for place in range(at, min(at + draw.choice([1, 2, 4, 8, 64]), len(data))):
        changed[place] = draw.choice([0, 0xFF, 0x7F, 0x80, draw.randrange(256)])
    return bytes(changed)


def truncate(data: bytes, draw: Random) -> bytes:
    return data[:draw.choice([0, 1, 8, len(data) - 1, len(data) // 2, draw.randrange(len(data))])]


def extend(data: bytes, draw: Random) -> bytes:
    more = draw.choice([bytes(1), bytes(1000), draw.randbytes(100), data])
    return data + more if draw.random() < 0.5 else more + data


def cut_out(data: bytes, draw: Random) -> bytes:
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.choice([1, 4, 16, 512]):]


def repeat(data: bytes, draw: Random) -> bytes:
    at, length = draw.randrange(len(data)), draw.choice([1, 16, 512])
    return data[:at + length] + data[at:]


def something_else(data: bytes, draw: Random) -> bytes:
    return draw.choice([b"", b"\n", b"\0" * 1000, b"<html><body>404</body></html>", b"{}", b"[]", b"null",
                        b"version https://git-lfs.github.com\n", b"PK\3\4", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY\1\0",
                        b"\x80\2}.", b"%PDF-1.4", b"\x1f\x8b\x08\0", draw.randbytes(500)])


ANY: tuple[Damage, ...] = (flip_bit, flip_bit, flip_bit, flip_bytes, set_bytes, truncate, extend, cut_out, repeat,
                           something_else)
"""Damage of bytes; nothing that has a checksum may come out changed."""


# Texts

def odd_text(data: bytes, draw: Random) -> bytes:
    """Damage that a text editor, another encoding or an attacker does to a YAML, JSON or CSV file."""
    text = data.decode()
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines))
    bomb = "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else 'x'] * 9)}]\n" for n in range(9))
    odd = draw.choice(["[" * 1500, "{" * 1500, "\t", "\0", "\x85", "&a [*a]", "!!python/object/apply:os.system [id]",
                       "? :", "%YAML 9.9", "<<: 1", "'", '"', "---\n", "...", "x: 1\n", bomb, "- " * 3000, "\ufeff",
                       "#" * 10, "\r", "2026-01-01", "!!set {a, b}", "|", ">", "@", "`", "=", ",", ",,,,", ":",
                       "\u2028"])
    return draw.choice([
        lambda: "".join([*lines[:at], odd, *lines[at:]]).encode(errors="replace"),
        lambda: "".join([*lines[:at], lines[at].rstrip("\n") + odd + "\n", *lines[at + 1:]]).encode(errors="replace"),
        lambda: "".join([*lines[:at], *lines[at + 1:]]).encode(),
        lambda: "".join([*lines[:at], lines[at], *lines[at:]]).encode(),
        lambda: "".join(draw.sample(lines, len(lines))).encode(),
        lambda: text.encode("utf-16"),
        lambda: (text + "é").encode("latin-1", errors="replace"),
        lambda: text.replace(":", "", 1).encode(),
    ])()


def odd_tree(tree: Any, draw: Random) -> Any:
    """A copy of dicts and lists with one to three values replaced, removed, renamed or added."""
    tree = deepcopy(tree)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = list(_places(tree))
        if not places:
            return draw.choice(HOSTILE)
        within, key = draw.choice(places)
        value = draw.choice(HOSTILE)
        kind = draw.choice(["replace", "replace", "replace", "near", "near", "remove", "rename", "add", "wrap"])
        if kind == "replace":
            within[key] = value
        elif kind == "near" and isinstance(within[key], int | float) and not isinstance(within[key], bool):
            near = within[key]
            within[key] = draw.choice([near + 1, near - 1, near * 2, near * 1000, -near, near + 0.5, str(near),
                                       bool(near)])
        elif kind == "remove":
            del within[key]
        elif kind == "rename" and isinstance(within, dict):
            within[draw.choice([f"{key}x", 1, "", "__class__"])] = within.pop(key)
        elif kind == "add" and isinstance(within, dict):
            within[draw.choice(["sed", "x" * 1000, "a.b"])] = value
        else:
            within[key] = [within[key]]
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    if isinstance(tree, dict | list):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        return [(tree, key) for key in keys] + [place for key in keys for place in _places(tree[key])]
    return []


def odd_json(data: bytes, draw: Random) -> bytes:
    return json.dumps(odd_tree(json.loads(data), draw)).encode()


def odd_yaml(data: bytes, draw: Random) -> bytes:
    tree = odd_tree(yaml.safe_load(data), draw)
    text = yaml.safe_dump(tree, allow_unicode=True) if draw.random() < 0.5 else json.dumps(tree)
    return text.encode(errors="replace")


def odd_cells(data: bytes, draw: Random) -> bytes:
    """A CSV file with cells replaced."""
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = draw.choice(rows)
    row[draw.randrange(len(row))] = draw.choice([
        "", "x", '"', "1,2", ".. include:: /etc/passwd", '".. raw:: html\n\n   <script>"', "{{ 7 * 7 }}", "\0", "nan",
        "1e999", "x" * 300_000, "contradicts", "opn"])
    return "\n".join(",".join(row) for row in rows).encode() + b"\n"


# .npz

def odd_arrays(data: bytes, draw: Random) -> bytes:
    """The archive with an array missing, doubled, or of another type or shape; the checksums fit."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    name = draw.choice(list(arrays))
    array = arrays[name]
    text = draw.choice(["", "[]", "{", "[" * 5000, json.dumps(draw.choice(HOSTILE)), '{"system": 5}', "NaN",
                        '{"seed": 1e400}', '{"sampling": {"num_images": "12"}}', '{"weights_sha256": [1]}',
                        '{"extractor": 1}'])
    arrays[name] = draw.choice([
        lambda: array.astype(np.float64) if array.dtype.kind in "iufb" else np.array(text),
        lambda: np.array(text), lambda: np.array(text),
        lambda: array[..., None], lambda: array.reshape(-1)[:1], lambda: array.reshape(-1)[:0],
        lambda: np.asfortranarray(array), lambda: np.array(["a", "b"]), lambda: np.array(3.7),
        lambda: np.full(array.shape, np.nan), lambda: np.full(array.shape, 1j), lambda: np.full(array.shape, True),
        lambda: np.full(array.shape, -1), lambda: np.full(array.shape, 2 ** 63, np.uint64),
        lambda: np.full(array.shape, np.inf, np.float32), lambda: np.zeros((2, 3, 4, 5, 6), np.uint8),
        lambda: np.zeros(array.shape, ">i4"), lambda: np.zeros(array.shape, "datetime64[s]"),
        lambda: np.zeros(array.shape, [("a", "i4"), ("b", "f8")]), lambda: np.array([b"bytes"]),
    ])()
    if draw.random() < 0.15:
        del arrays[name]
    file = io.BytesIO()
    draw.choice([np.savez, np.savez_compressed])(file, **arrays)
    return file.getvalue()


def odd_header(data: bytes, draw: Random) -> bytes:
    """The archive with the header of one array replaced, or with an array of zeros that a few bytes unpack to."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    shape = draw.choice(["(100000000000, 8, 8, 3)", f"({2 ** 62}, 4)", "(-1, 8)", "(1.5,)", "'abc'", "()", "(0, 0)",
                         "(1,", "(" * 3000, "(2, 3, 8, 8)", "(12,)"])
    kind = draw.choice(["'|u1'", "'<i8'", "'|O'", "'|zz'", "'<f4'", "'<U5'", "[('a', '<i4')]", "[]", "3"])
    text = draw.choice([f"{{'descr': {kind}, 'fortran_order': {draw.choice([True, False, 7])}, 'shape': {shape}, }}",
                        "{'descr' '|u1'}}}]", "{'descr': '|u1", "[1, 2]", "{[]: 1}", "\0" * 40,
                        "__import__('os').abort()"])
    magic = draw.choice([b"\x93NUMPY\1\0", b"\x93NUMPY\1\0", b"\x93NUMPY\2\0", b"\x93NUMPY\x09\0", b"NUMPY"])
    header = magic + len(text + "\n").to_bytes(2, "little") + text.encode() + b"\n"
    zeros = draw.choice([0, 192, 10 ** 6, 3 * 10 ** 8])
    if zeros == 3 * 10 ** 8:
        count, size = zeros // 8, "'<i8'"
        shape = draw.choice([f"({count},)", f"({count // 192}, 3, 8, 64)", f"({count // 192}, 8, 8, 24)"])
        text = f"{{'descr': {size}, 'fortran_order': False, 'shape': {shape}, }}\n"
        header = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()
    members[name] = header + bytes(zeros)
    file = io.BytesIO()
    packing = zipfile.ZIP_DEFLATED if zeros > 10 ** 6 else draw.choice(
        [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    with zipfile.ZipFile(file, "w", packing) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()


# Weights

def odd_safetensors_header(data: bytes, draw: Random) -> bytes:
    """The file with another header of the right length."""
    length = int.from_bytes(data[:8], "little")
    tree = odd_tree(json.loads(data[8:8 + length]), draw)
    if draw.random() < 0.4:
        names = [name for name in tree if name != "__metadata__" and isinstance(tree[name], dict)] \
            if isinstance(tree, dict) else []
        if names:
            kinds = ("F64", "I32", "BOOL", "BF16", "F8_E4M3", "F8_E8M0", "F4", "C64", "U64", "X", 5)
            tree[draw.choice(names)] |= {"dtype": draw.choice(kinds)}
    header = json.dumps(tree).encode()
    said = draw.choice([len(header), len(header), len(header), len(header) + 8, 2 ** 62, 0])
    return said.to_bytes(8, "little") + header + data[8 + length:]


def odd_tensors(data: bytes, draw: Random) -> bytes:
    """A torch file whose content has something else in it; the checksums fit."""
    content = torch.load(io.BytesIO(data), weights_only=True)
    name = draw.choice(list(content))
    value = content[name]
    tensor = value if isinstance(value, torch.Tensor) else torch.ones(3, 4)
    other = draw.choice([
        lambda: tensor * float("nan"), lambda: tensor + 1j, lambda: tensor.bool(), lambda: tensor.to(torch.int32),
        lambda: tensor.double(), lambda: tensor.half(), lambda: tensor.to_sparse(), lambda: tensor[..., None],
        lambda: tensor.reshape(-1)[:1], lambda: tensor.to("meta"), lambda: tensor.reshape(-1)[:1].expand(2 ** 31),
        lambda: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8), lambda: nn.Parameter(tensor.float()),
        lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), lambda: torch.Size([1]), lambda: DEEP,
        lambda: 3, lambda: None, lambda: "x" * 10 ** 6, lambda: [tensor], lambda: {"inner": tensor}, lambda: {1, 2},
        lambda: bytearray(10), lambda: b"bytes", lambda: torch.float16, lambda: {3: {4: tensor}},
    ])()
    kind = draw.choice(["replace", "replace", "replace", "key", "remove", "nest", "list"])
    if kind == "replace":
        content[name] = other
    elif kind == "key":
        content[draw.choice([5, None, (1, 2), "", "module." + str(name), 1.5])] = content.pop(name)
    elif kind == "remove":
        del content[name]
    else:
        content = {draw.choice(["model", "state_dict", "ema", "x"]): content} if kind == "nest" else [content]
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=draw.random() < 0.85)
    return file.getvalue()


def odd_pickle(data: bytes, draw: Random) -> bytes:
    """A torch file with another pickle; the checksums fit."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = draw.choice([
        lambda: flip_bytes(members[name], draw), lambda: set_bytes(members[name], draw),
        lambda: cut_out(members[name], draw), lambda: b"\x80\2" + b"](" * 200_000,
        lambda: b"\x80\2" + b"]" * 2_000_000, lambda: b"\x80\2cos\nsystem\n(X\2\0\0\0idtR.",
        lambda: b"\x80\2cbuiltins\nbytearray\n(\x8a\5\0\0\0\0\2tR.", lambda: b"\x80\4N.",
        lambda: b"\x80\2}(K\1K\2u.",
    ])()
    file = io.BytesIO()
    packing = draw.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    with zipfile.ZipFile(file, "w", packing) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()
