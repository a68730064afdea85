"""Text of users: where lines end, which bytes are text, and what JSON is."""

import io
import sys

import pytest

from promot_jax import errors
from promot_jax.data import text_lines


@pytest.fixture
def file(tmp_path):
  def write(data: bytes):
    path = tmp_path / "user.jsonl"
    path.write_bytes(data)
    return path

  return write


def texts(path) -> list[str]:
  return [line.text for line in text_lines.read_lines(path)]


def test_only_a_line_feed_ends_a_line(file):
  odd = "a\u2028b\u2029c\u0085d\x0ce\x0bf\x1cg\rh"
  assert texts(file(f"{odd}\nlast".encode())) == [odd, "last"]
  assert texts(file(b"a\r\n\r\nb\r\n")) == ["a", "", "b"]
  assert texts(file(b"")) == [] and texts(file(b"\n")) == [""]


def test_lines_keep_their_numbers_where_blank_ones_are_left_out(file):
  path = file(b'\n{"a": 1}\n \t\r\n{"a": 2}\n')
  assert text_lines.read_json_lines(path) == [(2, {"a": 1}), (4, {"a": 2})]


def test_a_byte_order_mark_is_dropped(file):
  assert texts(file(b"\xef\xbb\xbfa\n")) == ["a"]


def test_standard_input_is_read_where_the_name_is_a_hyphen(monkeypatch):
  monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("ä\n".encode())))
  assert texts("-") == ["ä"]


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (b"fine\nsch\xf6n\n", r"user.jsonl:2 is no UTF-8: byte 0xf6 at byte 4 of the line"),
    (b"\xff\xfea\x00\n\x00", "is UTF-16"),
    (b"\x1f\x8b\x08rest", "compressed with gzip"),
    (b"PK\x03\x04rest", "spreadsheet"),
  ],
)
def test_bytes_that_are_no_text_are_named(file, data, words):
  with pytest.raises(errors.DataError, match=words):
    text_lines.read_text(file(data))


def test_a_file_that_is_not_there_is_a_wrong_flag(tmp_path):
  with pytest.raises(errors.ConfigError, match="No such file"):
    text_lines.read_lines(tmp_path / "none")
  with pytest.raises(errors.ConfigError, match="Is a directory"):
    text_lines.read_lines(tmp_path)


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("{", "is no JSON"),
    ('{"a": NaN}', "NaN is no JSON value; write null"),
    ('{"a": -Infinity}', "-Infinity is no JSON value"),
    ('{"a": 1e999}', "too large"),
    ('{"a": ' + "9" * 5000 + "}", "is no JSON"),
    ('{"a": 1, "b": 2, "a": 3}', "the name 'a' occurs twice"),
    ('{"a": {"b": 1, "b": 1}}', "the name 'b' occurs twice"),
    ('{"a": "\\ud83d"}', r"half of a surrogate pair \(.ud83d\)"),
    ('{"\\udc00": 1}', "half of a surrogate pair"),
    ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
    ("[1]", "is a list, not an object"),
    ('"text"', "is a text, not an object"),
    ("3", "is a number, not an object"),
    ("null", "is null, not an object"),
    ("{} {}", "is no JSON"),
  ],
)
def test_json_is_read_strictly(text, words):
  with pytest.raises(errors.DataError, match=rf"q:7.*{words}"):
    text_lines.json_object(text, where="q:7")


def test_whole_pairs_large_integers_and_other_alphabets_stay(file):
  found = text_lines.json_object('{"a": "\\ud83d\\ude00", "n": 123456789012345678901}', where="x")
  assert found == {"a": "\U0001f600", "n": 123456789012345678901}


@pytest.mark.parametrize(
  ("record", "words"),
  [
    ({"inputs": 3}, "q:1: field 'inputs' is a number, '3', not a text"),
    ({"inputs": None}, "is null"),
    ({"inputs": ["a"]}, "is a list"),
    ({"inputs": True}, "is true"),
    ({"text": "a"}, r"q:1 has no field 'inputs' \(it has: text\). Use --field"),
    ({}, "no field at all"),
  ],
)
def test_a_field_must_be_there_and_hold_text(record, words):
  with pytest.raises(errors.DataError, match=words):
    text_lines.text_field(record, "inputs", where="q:1")
  assert text_lines.text_field({"inputs": ""}, "inputs", where="q:1") == ""
