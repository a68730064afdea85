"""Original files: which are read, how rows become records, and what is said of those that do not."""

import json

import pytest

from promot_jax import errors
from promot_jax.data import layouts
from promot_jax.data.original_files import Layout, OriginalFiles


def _origin(tmp_path, rows=layouts.json_lines, record=dict, pattern=("set/train.jsonl",), **fields):
  layout = Layout(splits={"train": pattern, "test": ("set/test.jsonl",)}, rows=rows, record=record)
  (tmp_path / "set").mkdir(exist_ok=True)
  return OriginalFiles(layouts=(layout,), folder=str(tmp_path), **fields)


def _lines(path, *records):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def test_the_first_layout_counts_whose_files_are_all_there(tmp_path):
  layouts_ = tuple(
    Layout(splits={"train": (name,)}, rows=layouts.json_lines, record=dict)
    for name in ("a/train.jsonl", "b/*.jsonl")
  )
  origin = OriginalFiles(layouts=layouts_, folder=str(tmp_path))
  with pytest.raises(errors.ConfigError, match=r"split 'train': expected is a/train.jsonl or b/\*"):
    origin.records("train")
  _lines(tmp_path / "b" / "2.jsonl", {"n": "two"})
  _lines(tmp_path / "b" / "1.jsonl", {"n": "one"})
  assert [record["n"] for record in origin.records("train")] == ["one", "two"]
  _lines(tmp_path / "a" / "train.jsonl", {"n": "first"})
  assert [record["n"] for record in origin.records("train")] == ["first"]
  assert "a/train.jsonl" in origin.state()


def test_a_record_that_cannot_be_used_carries_its_place_and_its_problem(tmp_path):
  def record(row):
    return {"text": layouts.text(row, "text"), "label": layouts.class_number(row, ("no", "yes"))}

  origin = _origin(tmp_path, record=record)
  path = tmp_path / "set" / "train.jsonl"
  _lines(
    path,
    {"text": "a", "label": "yes"},
    {"label": "no"},
    {"text": "c", "label": "maybe"},
    {"text": 4, "label": "no"},
    {"text": "e"},
  )
  found = list(origin.records("train"))
  assert [each["where"] for each in found] == [f"{path}:{line}" for line in range(1, 6)]
  assert [each.get("label") for each in found] == [1, None, None, None, -1]
  assert found[1]["problem"] == "there is no 'text'; there are: label."
  assert found[2]["problem"] == "label 'maybe' is none of no, yes."
  assert found[3]["problem"] == "'text' is a number, not a text."
  assert origin.count("train") == 2


def test_references_are_examples_in_training_and_one_record_elsewhere(tmp_path):
  rows = [{"mr": "x", "references": ["a"]}, {"mr": "x", "references": ["b", "c"]}]
  rows += [{"mr": "y", "references": ["d"]}, {"mr": "x", "references": ["e"]}]
  origin = _origin(tmp_path, references="references", merged=True)
  for split in ("train", "test"):
    _lines(tmp_path / "set" / f"{split}.jsonl", *rows)
  found = {split: list(origin.records(split)) for split in ("train", "test")}
  assert [each["references"] for each in found["train"]] == [[letter] for letter in "abcde"]
  assert [each["references"] for each in found["test"]] == [["a", "b", "c"], ["d"], ["e"]]
  assert [each["where"][-1] for each in found["test"]] == ["1", "3", "4"]


def test_another_content_is_another_digest_wherever_the_folder_lies(tmp_path):
  digests = []
  for folder, text in (("one", "a"), ("two", "a"), ("three", "b")):
    (tmp_path / folder).mkdir()
    origin = _origin(tmp_path / folder)
    _lines(tmp_path / folder / "set" / "train.jsonl", {"text": text})
    digests.append(origin.digest())
  assert digests[0] == digests[1] != digests[2]


def test_parallel_files_of_unequal_length_are_refused_at_the_line(tmp_path):
  for side, text in (("en", "a\nb\nc\n"), ("fr", "A\nB\n")):
    (tmp_path / f"x.{side}").write_text(text)
  files = [[str(tmp_path / "x.en")], [str(tmp_path / "x.fr")]]
  rows = layouts.parallel(files, names=("en", "fr"))
  assert next(rows) == (f"{tmp_path / 'x.en'}:1", {"en": "a", "fr": "A"})
  next(rows)
  with pytest.raises(errors.DataError, match=r"x.en:3 has no partner: .*x.fr ends after line 2"):
    next(rows)
  with pytest.raises(errors.ConfigError, match="there are 2 of 'en' and 1 of 'fr'"):
    next(layouts.parallel([files[0] * 2, files[1]], names=("en", "fr")))


def test_a_document_of_another_form_is_named(tmp_path):
  (tmp_path / "x.json").write_text('{"data": []}')
  rows = layouts.json_document([[str(tmp_path / "x.json")]], records=lambda found: found["Data"])
  with pytest.raises(errors.DataError, match=r"x.json is not built as expected: KeyError 'Data'"):
    list(rows)


def test_a_split_without_records_is_refused(tmp_path):
  origin = _origin(tmp_path)
  _lines(tmp_path / "set" / "train.jsonl")
  with pytest.raises(errors.DataError, match=r"train.jsonl: there is no record for split 'train'"):
    origin.records("train")


def test_reading_begins_before_a_file_has_been_read(tmp_path, monkeypatch):
  """The first records of files of any size come at once."""
  seen = []

  def endless(files):
    for number in range(10**9):
      seen.append(number)
      yield f"{files[0][0]}:{number}", {"text": "x"}

  origin = _origin(tmp_path, rows=endless)
  _lines(tmp_path / "set" / "train.jsonl", {"text": "x"})
  records = origin.records("train")
  next(records), next(records)
  assert len(seen) <= 3
