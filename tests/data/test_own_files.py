"""Rows of a user's files as texts: which split, which label, and what is wrong with a single one."""

import json

import pytest

from promot_jax import errors
from promot_jax.data.own_files import OwnFiles


@pytest.fixture
def files(tmp_path, monkeypatch):
  """Writes train.tsv and makes the value for it."""
  monkeypatch.chdir(tmp_path)

  def make(content: str = "", file: str = "train.tsv", **settings) -> OwnFiles:
    if content:
      (tmp_path / file).write_text(content)
    settings = {"template": "{a} question: {b} answer:", "target": "{label}", **settings}
    return OwnFiles(train_file=file, **settings)

  return make


TABLE = "a\tb\tlabel\n" + "".join(f"p{n}\th{n}\t{n % 2}\n" for n in range(20))


def test_rows_become_texts_with_their_place(files):
  own = files(TABLE, labels={"0": "no", "1": "yes"})
  rows = [*own.rows("train"), *own.rows("validation")]
  assert len(own.rows("validation")) == 4 and len(rows) == 20
  row = next(row for row in rows if row.where == "train.tsv:5")
  assert row.text.input == "p3 question: h3 answer:"
  assert row.text.target == "yes" and row.text.answers == ("yes",) and not row.problem
  assert [row.text.target for row in own.rows("validation")].count("no") == 2
  assert own.words == ("no", "yes") and own.splits == ("train", "validation")


def test_labels_may_be_those_of_the_training_file(files):
  assert files(TABLE, labels="values").words == ("0", "1")
  assert files(TABLE, labels=["1", "0"]).words == ("1", "0")
  assert files(TABLE).words == ()
  many = "a\tb\tlabel\n" + "".join(f"p\th\tl{n}\n" for n in range(101))
  with pytest.raises(errors.DataError, match="101 different targets"):
    files(many, labels="values").rows("train")


def test_validation_and_test_have_files_of_their_own(files, tmp_path):
  (tmp_path / "v.jsonl").write_text('{"a": "x", "b": 2, "label": 1}\n')
  (tmp_path / "t.csv").write_text("label,b,a\n0,y,x\n")
  own = files(TABLE, validation_file="v.jsonl", test_file="t.csv", labels=["0", "1"])
  assert len(own.rows("train")) == 20 and own.splits == ("train", "validation", "test")
  assert own.rows("validation")[0].text.input == "x question: 2 answer:"
  assert own.rows("test")[0].text.target == "0" and own.rows("test")[0].where == "t.csv:2"


def test_a_list_of_answers_is_accepted_whole(files):
  lines = [
    {"a": "x", "b": "y", "label": ["one", "1", "one", " "]},
    {"a": "x", "b": "z", "label": []},
  ]
  own = files("\n".join(map(json.dumps, lines)), "t.jsonl", validation_share=0.5)
  found = [*own.rows("train"), *own.rows("validation")]
  assert {row.text.answers for row in found} == {("one", "1"), ()}


@pytest.mark.parametrize(
  ("line", "words"),
  [
    (
      '{"a": "x", "b": "y", "label": "2"}',
      "t.jsonl:3: target '2' is no label; LABELS has: '0', '1'",
    ),
    ('{"a": "x", "b": "y"}', "t.jsonl:3: column 'label' has no value"),
    ('{"a": null, "b": "y", "label": "1"}', "t.jsonl:3: column 'a' has no value"),
    ('{"a": ["x"], "b": "y", "label": "1"}', "t.jsonl:3: column 'a' is a list"),
    ('{"a": "x", "b": "y", "label": ["1", "7"]}', "t.jsonl:3: target '7' is no label"),
  ],
)
def test_a_row_that_cannot_be_used_says_why(files, line, words):
  good = [json.dumps({"a": f"x{n}", "b": "y", "label": n % 2}) for n in range(4)]
  lines = "\n".join([*good[:2], line, *good[3:]])
  own = files(lines, "t.jsonl", labels=["0", "1"], validation_share=0.5)
  (problem,) = [row.problem for row in own.rows("train") if row.problem]
  assert problem.startswith(words)
  assert not any(row.problem for row in own.rows("validation"))


@pytest.mark.parametrize(
  ("settings", "words"),
  [
    ({"template": "{c} {b}"}, r"train.tsv has no column 'c', which TEMPLATE='{c} {b}' needs"),
    ({"target": "{lable}"}, r"no column 'lable', which TARGET='{lable}' needs; it has: 'a', 'b'"),
  ],
)
def test_a_missing_column_is_named(files, settings, words):
  with pytest.raises(errors.DataError, match=words):
    files(TABLE, **settings).rows("train")


def test_too_few_rows_for_a_share(files):
  with pytest.raises(errors.DataError, match=r"1 usable rows .* VALIDATION_FILE"):
    files("a\tb\tlabel\nx\ty\t1\n").rows("train")


@pytest.mark.parametrize(
  ("settings", "words"),
  [
    ({"template": "no column"}, "TEMPLATE='no column' names no column"),
    ({"template": "{a"}, "'{' alone"),
    ({"labels": "yes"}, "LABELS='yes' must be"),
    ({"labels": {0: "no"}}, "texts in quotes"),
    ({"labels": {}}, "LABELS={} must be"),
    ({"validation_share": 1}, "VALIDATION_SHARE=1 must be between"),
    ({"validation_file": "v.xlsx"}, "CSV UTF-8"),
    ({"test_file": "gs://b/t.tsv"}, "is a URL"),
    ({"name": "mine_1shot"}, "TASK_NAME='mine_1shot'"),
  ],
)
def test_wrong_settings_are_refused_before_a_file_is_read(files, settings, words):
  with pytest.raises(errors.ConfigError, match=words):
    files(**settings)


def test_the_digest_follows_settings_and_content(files):
  first = files(TABLE).digest()
  assert files(TABLE).digest() == first
  assert files(TABLE + "p\th\t1\n").digest() != first
  assert files(TABLE, target="{b}").digest() != first
  with pytest.raises(errors.ConfigError, match="cannot be read"):
    files(file="none.tsv").digest()


def test_the_digest_of_rows_that_were_read_is_theirs(files, tmp_path):
  own = files(TABLE)
  first = own.digest()
  own.rows("train")
  (tmp_path / "train.tsv").write_text(TABLE.replace("p3", "p33"))
  assert own.digest() == first and files().digest() != first


def test_an_input_is_made_without_a_target(files):
  own = files(TABLE)
  assert own.input_of({"a": "x", "b": 1}, where="q:1") == "x question: 1 answer:"
  with pytest.raises(errors.DataError, match=r"q:1 has no 'b', which TEMPLATE=.* it has: 'a'"):
    own.input_of({"a": "x"}, where="q:1")
