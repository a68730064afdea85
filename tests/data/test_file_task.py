"""A user's tables through the same reading as every task: tokens, demonstrations, metrics, policies."""

import pytest

import tasks
from promot_jax import errors
from promot_jax.data import file_task
from promot_jax.data.own_files import OwnFiles
from promot_jax.metrics import registry
from tasks import catalog

TABLE = "a\tb\tlabel\n" + "".join(f"Tom {n}\tAnna\t{n % 2}\n" for n in range(20))
LENGTHS = {"inputs": None, "targets": None}


@pytest.fixture
def task(tmp_path, monkeypatch):
  """Writes train.tsv, adds its task under the name 'mine', and takes it away again."""
  monkeypatch.setattr(catalog, "_added", {})

  def make(content: str = TABLE, **settings):
    path = tmp_path / "train.tsv"
    path.write_text(content)
    settings = {"labels": {"0": "False", "1": "True"}, "target": "{label}", **settings}
    files = OwnFiles(train_file=str(path), template="{a} and {b}", name="mine", **settings)
    found = file_task.task_of(files)
    catalog.add(found)
    return found

  return make


def read(name: str, split: str, vocabulary: str = "t5", source: str = "micro", **options):
  full = tasks.resolve(name, source=source, vocabulary=vocabulary)
  return tasks.load_examples(full, split, LENGTHS, vocabulary=vocabulary, **options)


def test_it_is_found_and_read_as_any_task(task):
  found = task()
  assert catalog.find("mine_1shot") is found and "mine_4shot" in catalog.names()
  assert found.labels == ("False", "True") and found.first_token
  splits = catalog.splits("mine", source="micro")
  assert (splits.train, splits.select, splits.report) == ("train", "validation", "validation")
  examples = read("mine", "train")
  assert len(examples) == 16 and found.source("micro").size("train") == 16
  assert examples.records[0]["inputs"].endswith(" and Anna")
  assert {record["targets"] for record in examples.records} == {"True", "False"}
  strict = catalog.splits("mine", selection="strict", source="micro")
  assert (strict.train, strict.select, strict.report) == ("train_strict", "selection", "validation")


def test_demonstrations_come_from_the_training_rows(task):
  task()
  queries = {record["inputs"] for record in read("mine", "validation").records}
  for record in read("mine_1shot", "validation").records:
    demonstration, answer, query = _parts(record["inputs"])
    assert query in queries and demonstration not in queries
    assert answer == ("True" if int(demonstration.split()[1]) % 2 else "False")


def _parts(text: str) -> tuple[str, str, str]:
  first, _, rest = text.partition(" and Anna ")
  answer, _, query = rest.partition(" ")
  return f"{first} and Anna", answer, query


def test_another_table_of_the_same_name_is_read_anew(task, tmp_path):
  task()
  assert len(read("mine", "train", cache_dir=tmp_path / "cache")) == 16
  assert len(read("mine_1shot", "train", cache_dir=tmp_path / "cache")) == 16
  task(TABLE + "Tom 20\tAnna\t1\nTom 22\tAnna\t0\n")
  assert len(read("mine", "train", cache_dir=tmp_path / "cache")) == 18
  assert len(read("mine_1shot", "train", cache_dir=tmp_path / "cache")) == 18


def test_a_tokenizer_of_the_users_reads_it(task, tokenizer_folder):
  task()
  vocabulary = f"hf:{tokenizer_folder('gpt2')}"
  examples = read("mine_1shot", "validation", vocabulary=vocabulary, source="tfds")
  assert len(examples) == 4 and "\n\n" in examples.records[0]["inputs"]


def test_rows_that_cannot_be_used_are_refused_by_line_or_counted(task):
  task(TABLE + "x\ty\t7\nx\tz\t\n")
  with pytest.raises(errors.DataError) as found:
    read("mine", "train")
  message = str(found.value)
  assert "2 of 18 records have to be refused (malformed records)" in message
  assert "train.tsv:22: target '7' is no label; LABELS has: '0', '1'" in message
  assert "train.tsv:23: the target is empty" in message
  assert dict(read("mine", "train", malformed="skip").lengths.skipped) == {"malformed records": 2}


def test_metrics_are_chosen_by_name(task):
  scores = task(metric="macro_f1").metric_fns[0](["True", "False"], ["True", "no"])
  assert scores["macro_f1"] == 50.0
  free = task(metric="f1", labels=None)
  assert free.metric_fns[0](["red car"], ["car"])["f1"] == pytest.approx(200 / 3)
  assert not free.labels and not free.first_token
  for name in registry.NAMES:
    assert name in task(metric=name).metric_fns[0].names
  with pytest.raises(errors.ConfigError, match=r"METRIC='acuracy': .* did you mean 'accuracy'"):
    task(metric="acuracy")
  with pytest.raises(errors.ConfigError, match=r"METRIC='macro_f1': .* got no labels"):
    task(metric="macro_f1", labels=None)


def test_labels_of_several_words_are_compared_whole(task):
  found = task(labels={"0": "not at all", "1": "yes"})
  assert not found.first_token and found.postprocess("not at all") == "not at all"


def test_a_name_of_ours_is_refused(tmp_path):
  path = tmp_path / "train.tsv"
  path.write_text(TABLE)
  files = OwnFiles(train_file=str(path), template="{a}", target="{label}", name="rte")
  with pytest.raises(errors.ConfigError, match="the name 'rte' is that of a task of ours"):
    catalog.add(file_task.task_of(files))
