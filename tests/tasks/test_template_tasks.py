"""Templates as tasks: found and read like any other, over tables and over the records of our own tasks."""

import itertools

import numpy as np
import pytest

import tasks
from promot_jax import errors
from promot_jax.data.templated import TemplatedData, TemplatedTasks
from tasks import catalog, template_tasks

LENGTHS = {"inputs": None, "targets": None}
FILE = """\
templates:
  a: !Template
    name: is it true
    jinja: '{{premise}} question: {{hypothesis}} ||| {{ answer_choices[label] }}'
    answer_choices: True ||| False
  b: !Template
    name: Who? 1shot
    jinja: '{% if label == 0 %}{{premise}} {{hypothesis}} ||| {{ answer_choices[1] }}{% endif %}'
    answer_choices: 'no ||| {{hypothesis}}'
  c: !Template
    name: write
    jinja: 'About {{hypothesis}}: ||| {{premise}}'
    metadata: !TemplateMetadata {metrics: [Other, ROUGE], original_task: false}
"""
TABLE = "premise\thypothesis\tlabel\n" + "".join(
  f"Tom {n} sold it.\tAnna {n}\t{('yes', 'no')[n % 2]}\n" for n in range(20)
)
CLASSES = {"label": ["yes", "no"]}


@pytest.fixture
def data(tmp_path, monkeypatch):
  """Writes templates and table, and gives the data set 'own' of them."""
  monkeypatch.setattr(catalog, "_added", {})
  monkeypatch.setattr(catalog, "_added_mixtures", {})

  def make(content: str = FILE, table: str = TABLE, **settings) -> TemplatedData:
    (tmp_path / "t.yaml").write_text(content)
    (tmp_path / "train.tsv").write_text(table)
    if "task" not in settings:
      settings = {"train_file": str(tmp_path / "train.tsv"), "classes": CLASSES, **settings}
    return TemplatedData(name="own", templates_file=str(tmp_path / "t.yaml"), **settings)

  return make


def add(data: TemplatedData, **settings) -> TemplatedTasks:
  found = TemplatedTasks(data_sets=[data], **settings)
  template_tasks.add(found)
  return found


def read(name: str, split: str, **options):
  return tasks.load_examples(tasks.resolve(name, source="micro"), split, LENGTHS, **options)


def test_each_is_found_by_its_name_and_all_together_as_mixtures(data):
  add(data(), held_out_templates=["write"])
  assert (
    catalog.members("templates") == ["own_is_it_true", "own_who_1shot_"] == catalog.members("own")
  )
  assert catalog.members("own_held_out") == ["own_write"]
  first, who, write = map(catalog.find, ("own_is_it_true", "own_who_1shot_", "own_write"))
  assert first.labels == ("True", "False") and first.ranked and first.metric == "accuracy"
  assert who.ranked and who.labels == ()
  assert not write.ranked and write.metric == "rouge2"


def test_records_are_rendered_with_their_choices(data):
  add(data())
  first = read("own_is_it_true", "train").records[0]
  assert first["inputs"].startswith("Tom ") and first["choices"] == ["True", "False"]
  assert {record["targets"] for record in read("own_is_it_true", "train").records} == {
    "True",
    "False",
  }
  who = read("own_who_1shot_", "train")
  assert all(record["choices"] == ["no", record["targets"]] for record in who.records)
  assert not who.lengths.skipped and len(who) < len(read("own_is_it_true", "train"))
  assert "choices" not in read("own_write", "train").records[0]


def test_all_templates_validate_on_the_same_rows(data):
  add(data())
  subjects = {}
  for name, split in itertools.product(("own_is_it_true", "own_write"), ("train", "validation")):
    found = read(name, split).records
    subjects[name, split] = {record["inputs"].split("Anna ")[1].rstrip(":") for record in found}
  assert len(subjects["own_write", "validation"]) == 4
  assert subjects["own_write", "validation"] == subjects["own_is_it_true", "validation"]
  assert not subjects["own_write", "validation"] & subjects["own_is_it_true", "train"]


def test_records_of_a_task_of_ours_are_divided_alike_for_all_templates(data):
  add(data(task="rte"))
  splits = catalog.splits("own_is_it_true", selection="strict", source="micro")
  assert splits == catalog.splits("rte", selection="strict", source="micro")
  found = [
    {record["targets"] for record in read("own_write", "selection", limit=50).records},
    {record["inputs"].split(" question:")[0] for record in read("own_is_it_true", "selection", limit=50).records},
  ]  # fmt: skip
  assert found[0] == found[1]


def test_files_for_openbookqa_find_the_columns_of_hugging_face(data):
  # promptsource's all have these two lines; the field of the same name is a number in the source.
  content = """\
templates:
  a: !Template
    name: choose
    jinja: '{{question_stem}} {{choices.label[3]}} ||| {{answer_choices[{"A":0,"B":1,"C":2,"D":3}[answerKey]]}}'
    answer_choices: '{{choices.text | join("|||")}}'
"""
  add(data(content, task="openbookqa"))
  plain = tasks.load_examples(
    tasks.resolve("openbookqa", source="micro"), "validation", LENGTHS, limit=20
  )
  found = read("own_choose", "validation", limit=20)
  for before, made in zip(plain.records, found.records, strict=True):
    stem, choices = before["inputs"].removeprefix("Q: ").split(" A) ")
    choice = "ABCD".index(before["targets"])
    texts = (
      choices.removesuffix(" A:").replace(" B) ", "|").replace(" C) ", "|").replace(" D) ", "|")
    )
    assert made["inputs"] == f"{stem} D"
    assert made["targets"] == texts.split("|")[choice]


def test_demonstrations_are_those_of_the_template(data):
  add(data())
  record = read("own_is_it_true_1shot", "validation").records[0]
  assert record["inputs"].count("question:") == 2


def test_the_digest_of_rows_that_were_read_is_theirs(data, tmp_path):
  own = data()
  first = own.digest()
  own.rows("train")
  (tmp_path / "train.tsv").write_text(TABLE.replace("Tom 3 ", "Tim 3 "))
  assert own.digest() == first
  assert data(table=TABLE.replace("Tom 3 ", "Tim 3 ")).digest() != first


def test_another_template_is_read_anew(data, tmp_path):
  add(data())
  old = read("own_is_it_true", "train", cache_dir=tmp_path / "cache")
  assert (
    read("own_is_it_true", "train", cache_dir=tmp_path / "cache").fingerprint == old.fingerprint
  )
  add(data(FILE.replace(" question:", ", so")))
  new = read("own_is_it_true", "train", cache_dir=tmp_path / "cache")
  assert new.records[0]["inputs"] == old.records[0]["inputs"].replace(" question:", ", so")


def test_rows_that_cannot_be_used_are_refused_by_line_or_counted(data):
  own = data(table=TABLE + "a\tb\tmaybe\n")
  with pytest.raises(
    errors.DataError, match=r"train.tsv:22: label 'maybe' is no class; CLASSES has: 'yes'"
  ):
    template_tasks.refuse_problems(own)
  add(own)
  split = "train" if len(own.rows("train")) == 17 else "validation"
  found = read("own_is_it_true", split, malformed="skip").lengths
  assert dict(found.skipped) == {"malformed records": 1}
  with pytest.raises(
    errors.DataError,
    match=r"has no column 'hypothesis', which .*t.yaml, template 'is it true' needs",
  ):
    data(table="a\tb\n1\t2\n").rows("train")


def test_held_out_data_sets_are_measured_by_what_they_ask_for_themselves(data, tmp_path):
  other = TemplatedData(name="other", templates_file=str(tmp_path / "t.yaml"), task="rte")
  found = TemplatedTasks(data_sets=[data(), other], held_out_data_sets=["other"])
  assert found.held_out == {"other": ("other_is_it_true", "other_who_1shot_")}
  assert set(found.tuned) == {"own"} and found.unit_of("other_is_it_true") == "other"
  assert found.unit_of("rte") is None and found.data_of("own_write").name == "own"


# (settings of the data set, of the tasks, part of the message)
WRONG = [
  ({"templates": ["none"]}, {}, "has no template 'none'; it has: 'is it true'"),
  ({"train_file": None, "classes": {}}, {}, "has records from nowhere|have records from nowhere"),
  ({"tfds_name": "x:1.0.0"}, {}, "from tfds_name and train_file"),
  ({"classes": {"label": "yes"}}, {}, "must be a column with its words"),
  ({"validation_share": 2}, {}, "VALIDATION_SHARE=2"),
  ({"task": "nothing"}, {}, "task 'nothing' is not known"),
  ({"metric": "blue"}, {}, "metric of 'own_write': .* did you mean 'bleu'"),
  ({}, {"held_out_templates": ["is it tru"]}, "HELD_OUT_TEMPLATES has 'is it tru', which is no template"),
  ({}, {"held_out_templates": ["is it true", "Who? 1shot", "write"]}, "nothing to tune on"),
  ({}, {"held_out_data_sets": ["rte"]}, "HELD_OUT_DATA_SETS has 'rte', which is no data set"),
  ({}, {"held_out_templates": "write"}, r"must be a list: write \['write'\]"),
  ({}, {"name": "own"}, "need different names, and none is 'own'"),
  ({}, {"name": "rte"}, "the name 'rte' is that of a task"),
]  # fmt: skip


@pytest.mark.parametrize("settings, of_tasks, message", WRONG)
def test_wrong_settings_are_refused(data, settings, of_tasks, message):
  with pytest.raises(errors.ConfigError, match=message):
    add(data(**settings), **of_tasks)


def test_nested_fields_of_a_source_are_read_whole():
  import tensorflow as tf

  from tasks import records

  task = catalog.find("rte")
  task = type(task)(
    name="x", sources={}, fields=(("choices",), ("n",)), metric="", metric_fns=(), template=None
  )
  found = {"choices": {"text": ["u", "v"], "label": ["A", "B"]}, "n": 3}
  dataset = tf.data.Dataset.from_tensors(found)
  (record,) = (each() for each in records.plain(task, dataset))
  assert record == found and not isinstance(record["choices"]["text"], np.ndarray)
