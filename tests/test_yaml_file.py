"""What a config or a data file may say, and the one line that tells of everything else."""

import subprocess
import sys

import pytest
from conftest import ROOT

from varient.yaml_file import ConfigError, parse_yaml, read_yaml, shortened

BOMB = "\n".join(["a: &a [x, x, x, x, x, x, x, x, x, x]",
                  *(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]"
                    for old, new in zip("abcdefgh", "bcdefghi", strict=True))])
MERGES = "\n".join(["a: &a {x: 1}", *(f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}"
                                      for old, new in zip("abcdefgh", "bcdefghi", strict=True))])


def test_json_is_read_too_with_tabs_between_its_values(tmp_path):
    (tmp_path / "x.json").write_text('{\n\t"a":\t[1, 2.5, true, null],\n\t"b": {"c": "\\t"}\n}')
    assert read_yaml(tmp_path / "x.json") == {"a": [1, 2.5, True, None], "b": {"c": "\t"}}


def test_an_alias_repeats_and_a_merge_may_be_overridden():
    text = "a: &a {x: 1, y: 2}\nb: *a\nc: {<<: *a, x: 3}"
    assert parse_yaml(text, "x") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}}


@pytest.mark.parametrize(("text", "key", "first", "second"), [
    ("a: 1\nb: 2\na: 3", "a", 1, 3),
    ("top:\n  a: 1\n  b: {c: 1,\n      c: 1}", "c", 3, 4),
    ("- x\n- {a: 1}\n- a: 1\n  'a': 2", "a", 3, 4),
    ('{"a": 1,\n "a": 1}', "a", 1, 2),
    ("16: 1\n\n0x10: 1", "16", 1, 3),
    ('16: 1\n"16": 1', "16", 1, 2),  # one key once it is JSON
    ("? a\n? a", "a", 1, 2),
    ("a: &a {x: 1}\nb: {<<: *a,\n <<: *a}", "<<", 2, 3),
])
def test_a_key_given_twice_is_told_with_both_lines(text, key, first, second):
    with pytest.raises(ConfigError) as error:
        parse_yaml(text, "x.yaml")
    assert str(error.value) == f"x.yaml: key {key!r} is given twice, in line {first} and in line {second}"


@pytest.mark.parametrize(("text", "message"), [
    ("a: [1", "line 1: expected"),
    ("a: \0", "#x0000"),
    ("a:\n\t- 1", r"line 2: .*'\\t'"),
    ("a: 1\n--- \nb: 2", "another document"),
    ("a: *b", "undefined alias 'b'"),
    ("a: &a [*a]", "an alias refers to a value that contains it"),
    (BOMB, "more than 100,000 values"),
    (MERGES, "more than 100,000 values"),
    ("[" * 1500, "nested too deeply"),
    ("[" * 100_000, "nested too deeply"),
    ("a: 2024-01-01", "line 1: unsupported value type 'timestamp'"),
    ("a: 2024-99-99", "line 1: unsupported value type 'timestamp'"),
    ("a:\n  !!set {b}", "line 2: unsupported value type 'set'"),
    ("a: !!python/tuple [1]", "unsupported value type 'python/tuple'"),
    ("a: !!python/object/apply:os.system [true]", "unsupported value type"),
    ("a: !!binary aGk=", "'binary'"),
    ("a: !mine 1", "'!mine'"),
    ("a: !!int many", "'many' cannot be read as int"),
    ("a: !!bool many", "'many' cannot be read as bool"),
    ("a: " + "9" * 30, "an integer beyond 63 bits"),
    ("a: " + "9" * 5000, "cannot be read as int"),
    ("a: 0x" + "f" * 5000, "an integer beyond 63 bits"),
    ("a: 1" + ":1" * 50_000, "line 1: a number in base 60 of 100,001 characters"),
    ("a: 1" + ":1" * 300 + ":1.5", "line 1: a number in base 60"),
    ("yes: 1", "line 1: a key must be a string"),
    ("1.5: 1", "a key must be a string"),
    ("[a, b]: 1", "a key must be a string"),
    ("a: {<<: 1}", "mapping"),
])
def test_what_json_does_not_have_is_told_in_one_line(text, message):
    with pytest.raises(ConfigError, match=message) as error:
        parse_yaml(text, "x.yaml")
    assert str(error.value).startswith("x.yaml: ") and "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize(("content", "message"), [
    (b"name: \xff\xfe", "not UTF-8 text"),
    ("name: é".encode("utf-16"), "not UTF-8 text"),
    (b"#" * 2 ** 25, "larger than 16 MiB"),
])
def test_files_that_are_no_text_are_named(tmp_path, content, message):
    (tmp_path / "x.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"x\.yaml: .*{message}"):
        read_yaml(tmp_path / "x.yaml")


def test_what_cannot_be_opened_is_named(tmp_path):
    (tmp_path / "file").touch()
    for path, message in ((tmp_path, "Is a directory"), (tmp_path / "file/x.yaml", "Not a directory"),
                          (tmp_path / "none.yaml", "no such config file"), (tmp_path / ("x" * 300), "name too long")):
        with pytest.raises(ConfigError, match=message) as error:
            read_yaml(path)
        assert str(error.value).startswith(f"{path}: ")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path):
    (tmp_path / "x.yaml").write_bytes("name: é".encode("utf-8-sig"))
    assert read_yaml(tmp_path / "x.yaml") == {"name": "é"}


def test_messages_show_long_values_in_part():
    assert len(shortened("x" * 10 ** 6)) < 70 and len(shortened([list(range(1000))] * 1000)) < 300
    assert shortened("a\nb") == repr("a\nb")


def test_files_are_utf_8_whatever_the_locale(tmp_path):
    text = (ROOT / "workflow/config/smoke.yaml").read_text("utf-8")
    (tmp_path / "config.yaml").write_text(f"# Größe\n{text}", "utf-8")
    result = subprocess.run([sys.executable, "-X", "utf8=0", "-m", "varient", "check", "--config",
                             str(tmp_path / "config.yaml")], capture_output=True, cwd=ROOT,
                            env={"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"})
    assert result.returncode == 0, result.stderr
