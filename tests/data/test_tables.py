"""Tables of users: which cells a file has, and in which words one is refused that has none."""

import pytest

from promot_jax import errors
from promot_jax.data import tables


@pytest.fixture
def file(tmp_path):
  def write(name: str, data: bytes | str):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path

  return write


def cells(path, **options):
  return [dict(row.cells) for row in tables.read(path, **options).rows]


def numbers(path, **options):
  return [row.number for row in tables.read(path, **options).rows]


EXPECTED = [{"text": "a", "label": "1"}, {"text": "ü\u2028,", "label": "0"}]


@pytest.mark.parametrize(
  ("name", "data"),
  [
    ("t.tsv", "text\tlabel\na\t1\nü\u2028,\t0\n"),
    ("t.TAB", "\ufefftext\tlabel\r\na\t1\r\nü\u2028,\t0"),
    ("t.csv", 'text,label\na,1\n"ü\u2028,",0\n'),
    ("t.csv", 'text;label\r\n a ;1\r\nü\u2028,;"0"\r\n'),
    ("t.csv", "text\tlabel\na\t1\nü\u2028,\t0\n"),
    ("t.csv", "\ntext;label\na;1\nü\u2028,;0\n"),
    ("t.csv", '\ufeff \r\n\r\ntext;label\r\na;1\r\n"ü\u2028,";0'),
    ("t.csv", "\n\ntext\tlabel\na\t1\nü\u2028,\t0\n"),
    ("t.csv", ";;\ntext;label\na;1\nü\u2028,;0\n"),
    ("t.csv", ',text,label\n0,a,1\n1,"ü\u2028,",0\n,,\n'),  # a column and a row of nothing
    ("t.jsonl", '{"text": "a", "label": "1"}\n\n{"text": "ü\u2028,", "label": "0"}\n'),
  ],
)
def test_the_same_rows_are_read_from_every_kind_of_text(file, name, data):
  assert cells(file(name, data)) == EXPECTED
  assert tables.read(file(name, data)).columns == ("text", "label")


def test_parquet_is_read_by_rows(tmp_path):
  import pyarrow
  from pyarrow import parquet

  path = tmp_path / "t.parquet"
  columns = {"text": ["a", "ü"], "label": [1, None], "many": [["x", "y"], []]}
  parquet.write_table(pyarrow.table(columns), path)
  table = tables.read(path)
  assert [dict(row.cells) for row in table.rows] == [
    {"text": "a", "label": 1, "many": ["x", "y"]},
    {"text": "ü", "label": None, "many": []},
  ]
  assert table.where(table.rows[1]) == f"{path}, row 2"
  where = table.where(table.rows[1])
  with pytest.raises(errors.DataError, match="row 2: column 'label' has no value"):
    tables.text_of(table.rows[1].cells["label"], where=where, column="label")


def test_values_of_parquet_are_those_of_json(tmp_path):
  import datetime
  import decimal

  import pyarrow
  from pyarrow import parquet

  path = tmp_path / "t.parquet"
  row = {"day": datetime.date(2024, 2, 1), "sum": decimal.Decimal("1.50"), "name": "é".encode()}
  columns = {name: [value] for name, value in {**row, "nan": float("nan")}.items()}
  parquet.write_table(pyarrow.table(columns), path)
  assert cells(path) == [{"day": "2024-02-01", "sum": "1.50", "name": "é", "nan": None}]
  parquet.write_table(pyarrow.table({"image": [b"ok", b"\x89PNG"]}), path)
  with pytest.raises(errors.DataError, match="row 2 has bytes that are no UTF-8: byte 0x89"):
    tables.read(path)


def test_quoted_cells_hold_separators_line_ends_and_quotes(file):
  path = file("t.csv", 'a,b\n"x, ""y""\r\nz",1\n\nsay "hi",2\n')
  assert cells(path) == [{"a": 'x, "y"\nz', "b": "1"}, {"a": 'say "hi"', "b": "2"}]
  assert numbers(path) == [2, 5]


def test_quotes_can_be_read_as_they_are(file):
  path = file("t.tsv", 'a\tb\n"He said" so\t1\n"open\t2\n')
  assert cells(path, quotes=False) == [{"a": '"He said" so', "b": "1"}, {"a": '"open', "b": "2"}]
  with pytest.raises(errors.DataError, match=r"t.tsv:2 has text behind a closing .*QUOTES = False"):
    tables.read(path)


def test_a_cell_may_be_longer_than_what_csv_allows_at_first(file):
  assert len(cells(file("t.tsv", "a\tb\n" + "x" * 200_000 + "\t1\n"))[0]["a"]) == 200_000


@pytest.mark.parametrize(
  ("name", "data", "words"),
  [
    ("t.tsv", "a\tb\n1\t2\n3\n", r"t.tsv:3 has 1 cell and .* 2 columns \(a, b\).*'3'"),
    ("t.csv", "a,b\n1,2\n3,4,5\n", r"t.csv:3 has 3 cells .*comma"),
    ("t.csv", 'a,b\n"1,2\n3,4\n', r"t.csv:2 opens a cell .* nothing closes"),
    ("t.csv", "a,b\n1,x\ry\n", r"t.csv:2 has a carriage return"),
    ("t.csv", "a,b,a\n1,2,3\n", r"t.csv:1 names two columns 'a' \(columns 1 and 3\)"),
    ("t.tsv", b"a\tb\nsch\xf6n\t1\n", r"t.tsv:2 is no UTF-8: byte 0xf6 at byte 4"),
    ("t.tsv", b"a\tb\n1\t\x002\n", r"t.tsv:2 has a NUL byte"),
    ("t.csv", "", r"t.csv is empty: a table has a row with names"),
    ("t.csv", "a,b\n", r"t.csv is empty: a table has one row for each example"),
    ("t.csv", b"PK\x03\x04rest", "spreadsheet"),
    ("t.jsonl", '{"a": 1}\n[2]\n', r"t.jsonl:2 is a list"),
    ("t.jsonl", "\n", "is empty"),
    ("t.parquet", b"PAR1 not really", "no Parquet file"),
    ("t.parquet", b"", "no Parquet file"),
  ],
)
def test_what_cannot_be_used_is_named_by_line_and_value(file, name, data, words):
  with pytest.raises(errors.DataError, match=words) as found:
    tables.read(file(name, data))
  assert found.value.exit_code == 65


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("t.xlsx", r"ends in '\.xlsx'.*CSV UTF-8"),
    ("t", "ends in 'nothing'"),
    ("t.json", "jq -c"),
    ("https://example.org/t.tsv", "is a URL.*download it"),
    ("none.tsv", "none.tsv cannot be read: No such file"),
    ("none.parquet", "none.parquet cannot be read: No such file"),
  ],
)
def test_a_wrong_name_is_a_wrong_setting(tmp_path, monkeypatch, name, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(errors.ConfigError, match=words):
    tables.read(name)


def test_a_folder_is_no_table(tmp_path):
  (tmp_path / "t.tsv").mkdir()
  with pytest.raises(errors.DataError, match="is a folder"):
    tables.read(tmp_path / "t.tsv")


def test_a_missing_column_is_named_with_those_that_are_there(file):
  table = tables.read(file("t.tsv", "text\tlabel\na\t1\n"))
  table.require(["label"], what="TARGET='{label}'")
  with pytest.raises(errors.DataError, match=r"no column 'lable', which TARGET.* 'text', 'label'"):
    table.require(["text", "lable"], what="TARGET='{lable}'")


@pytest.mark.parametrize(
  ("value", "text"), [("a", "a"), (3, "3"), (0.5, "0.5"), (True, "true"), ("", "")]
)
def test_values_become_text(value, text):
  assert tables.text_of(value, where="t:1", column="a") == text


@pytest.mark.parametrize(
  ("value", "words"),
  [
    (None, "t:1: column 'a' has no value"),
    ([1], "is a list, '.1.', not a text or a number"),
    ({"b": 1}, "is an object"),
  ],
)
def test_other_values_are_refused(value, words):
  with pytest.raises(errors.DataError, match=words):
    tables.text_of(value, where="t:1", column="a")
