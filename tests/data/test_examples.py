"""Materialised splits: counts, refusals, the cache; on a toy task of bytes."""

import dataclasses
import functools
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from promot_jax import errors
from promot_jax.data import cache
from promot_jax.data.examples import concatenate, load_examples

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
from tasks import preprocessors, sources  # noqa: E402
from tasks.web_questions import TASK  # noqa: E402

MODULES: tuple[str, ...] = ()  # the toy tasks are registered here
BYTES = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)


@dataclasses.dataclass(frozen=True)
class Toy:
  """An origin that gives a source."""

  source: seqio.DataSource

  def data_source(self):
    return self.source

  def explained(self, task, error):
    return None


def register(name: str, records, *, shots: int = 0, split: str = "train") -> None:
  """A web_questions task over `records` with a byte vocabulary (byte b is token b + 3)."""
  spec = {
    "question": tf.TensorSpec([], tf.string),
    "answers": tf.TensorSpec([None], tf.string),
  }

  def dataset(split, shuffle_files=False, seed=None):
    return tf.data.Dataset.from_generator(lambda: iter(records), output_signature=spec)

  source = seqio.FunctionDataSource(dataset, splits=[split])
  if name not in seqio.TaskRegistry.names():
    seqio.TaskRegistry.add(
      name,
      source=sources.TaskSource(TASK, Toy(source), shots=shots),
      output_features={"inputs": BYTES, "targets": BYTES},
      preprocessors=preprocessors.pipeline(TASK),
    )


def record(question, *answers):
  return {"question": question, "answers": np.array(answers, object)}


GOOD = [record("a" * n, f"answer {n}", "other") for n in range(1, 9)]
register("toy", GOOD)
register("toy_1shot", GOOD, shots=1)
register("toy_malformed", [*GOOD, record(b"\xff", "x"), record("fine", "y"), record(b"\xfe", "z")])
register("toy_unlabelled", [*GOOD, record("open?")])
register("toy_empty", [])

load = functools.partial(load_examples, modules=MODULES)


def encoded(text: str) -> list[int]:
  return [byte + 3 for byte in text.encode()] + [1]


def test_tokens_texts_and_answers_of_a_split():
  examples = load("toy", "train", {"inputs": 64, "targets": 16})
  assert len(examples) == 8
  assert examples.inputs[2].tolist() == encoded("Q: aaa A:")
  assert examples.targets[2].tolist() == encoded("answer 3")
  assert examples.inputs[2].dtype == np.int32
  assert examples.records[2] == {
    "inputs": "Q: aaa A:",
    "targets": "answer 3",
    "answers": ["answer 3", "other"],
  }
  assert examples.prompt_ids.tolist() == [0] * 8
  assert str(examples.lengths) == (
    "nothing cut: 8 examples, longest input 15, longest target 9 tokens"
  )


def test_what_is_cut_is_counted_and_still_ends():
  examples = load("toy", "train", {"inputs": 12, "targets": 5})
  assert str(examples.lengths) == (
    "inputs cut: 3 of 8 (37.5 %) > 12 tokens; EOS kept;"
    " targets cut: 8 of 8 (100.0 %) > 5 tokens; EOS kept"
  )
  assert examples.inputs[7].tolist() == [*encoded("Q: aaaaaaaa A:")[:11], 1]
  assert all(tokens[-1] == 1 for tokens in examples.targets)
  assert max(map(len, examples.inputs)) == 12


def test_a_few_shot_prompt_keeps_its_query():
  whole = load("toy_1shot", "train", {})
  examples = load("toy_1shot", "train", {"inputs": 16})
  for cut, full in zip(examples.inputs, whole.inputs):
    assert cut.tolist() == full[-16:].tolist()
  assert "inputs cut at the start: 8 of 8" in str(examples.lengths)
  ends = load("toy_1shot", "train", {"inputs": 16}, cut="end")
  assert ends.inputs[0].tolist() == [*whole.inputs[0][:15], 1]


def test_the_seed_chooses_the_demonstrations():
  texts = [
    [one["inputs"] for one in load("toy_1shot", "train", {}, seed=seed).records]
    for seed in (0, 0, 1)
  ]
  assert texts[0] == texts[1] != texts[2]


def test_a_limit_takes_the_first_examples():
  assert len(load("toy", "train", {}, limit=3)) == 3
  with pytest.raises(errors.ConfigError, match="limit is 0"):
    load("toy", "train", {}, limit=0)
  with pytest.raises(errors.ConfigError, match="feature length of the inputs is 1"):
    load("toy", "train", {"inputs": 1})


def test_malformed_records_are_counted_and_shown():
  with pytest.raises(errors.DataError, match=r"2 of 11 records .*malformed.*record 8: .*UTF-8"):
    load("toy_malformed", "train", {})
  with pytest.raises(errors.DataError, match=r"--gin\.MALFORMED=\"'skip'\""):
    load("toy_malformed", "train", {})
  examples = load("toy_malformed", "train", {}, malformed="skip")
  assert len(examples) == 9
  assert str(examples.lengths) == "records skipped: 2 (malformed records)"


def test_empty_targets_are_refused_skipped_or_kept():
  with pytest.raises(errors.DataError, match=r"1 of 9 records .*empty targets.*Q: open\? A:"):
    load("toy_unlabelled", "train", {})
  with pytest.raises(errors.DataError, match=r"--gin\.EMPTY_TARGETS=\"'skip'\""):
    load("toy_unlabelled", "train", {})
  assert len(load("toy_unlabelled", "train", {}, empty_targets="skip")) == 8
  kept = load("toy_unlabelled", "train", {}, empty_targets="keep")
  assert kept.targets[8].tolist() == [1]
  assert str(kept.lengths) == "targets empty: 1 of 9"


def test_an_empty_split_is_bad_data():
  with pytest.raises(errors.DataError, match="toy_empty, split train has no usable example"):
    load("toy_empty", "train", {})


def test_unknown_tasks_splits_and_mixtures_are_explained():
  with pytest.raises(errors.ConfigError, match="'toyy' is not registered; did you mean toy"):
    load("toyy", "train", {})
  with pytest.raises(
    errors.ConfigError,
    match=r"toy has no split 'trein'; it has: train, train_strict, selection. Did you mean 'train'",
  ):
    load("toy", "trein", {})
  if "toy_mixture" not in seqio.MixtureRegistry.names():
    seqio.MixtureRegistry.add("toy_mixture", ["toy", "toy_1shot"], default_rate=1.0)
  with pytest.raises(errors.ConfigError, match=r"toy_mixture is a mixture; .*toy, toy_1shot"):
    load("toy_mixture", "train", {})


def test_a_task_of_plain_seqio_can_be_loaded_too():
  name = "plain_seqio_task"
  if name not in seqio.TaskRegistry.names():

    def dataset(split, shuffle_files=False, seed=None):
      return tf.data.Dataset.from_tensors({"inputs": "ab", "targets": "c"})

    seqio.TaskRegistry.add(
      name,
      source=seqio.FunctionDataSource(dataset, splits=["test"]),
      output_features={"inputs": BYTES, "targets": BYTES},
      preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
    )
  examples = load(name, "test", {})
  assert examples.inputs[0].tolist() == encoded("ab")
  assert examples.records == [{"inputs": "ab", "targets": "c", "answers": ["c"]}]


def test_examples_can_be_selected_joined_and_given_prompts():
  examples = load("toy", "train", {})
  some = examples.select([5, 0]).with_prompt_ids(3)
  both = concatenate([examples, some])
  assert len(both) == 10
  assert both.prompt_ids.tolist() == [0] * 8 + [3, 3]
  assert both.records[8] == examples.records[5]
  assert both.inputs[9].tolist() == examples.inputs[0].tolist()


def test_a_second_process_reads_the_cache_without_tensorflow(tmp_path):
  lengths = {"inputs": 12, "targets": 16}
  made = load("toy", "train", lengths, cache_dir=tmp_path)
  code = (
    "import sys; from promot_jax.data.examples import load_examples;"
    f"e = load_examples('toy', 'train', {lengths}, modules=(), cache_dir={str(tmp_path)!r});"
    "print(e.fingerprint, [t.tolist() for t in e.inputs], e.records, e.lengths);"
    "assert not {'seqio', 'tensorflow', 'jax'} & set(sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  inputs = [tokens.tolist() for tokens in made.inputs]
  assert done.stdout.strip() == f"{made.fingerprint} {inputs} {made.records} {made.lengths}"


def test_the_cache_is_not_used_for_other_arguments(tmp_path):
  arguments = [
    {"feature_lengths": {"inputs": 12}},
    {"feature_lengths": {"inputs": 13}},
    {"feature_lengths": {"inputs": 12}, "limit": 3},
    {"feature_lengths": {"inputs": 12}, "seed": 1},
    {"feature_lengths": {"inputs": 12}, "cut": "start"},
  ]
  prints = {load("toy", "train", cache_dir=tmp_path, **one).fingerprint for one in arguments}
  assert len(prints) == len(list(tmp_path.glob("toy-train-*.npz"))) == len(arguments)


def test_the_cache_depends_on_code_and_vocabulary_files(tmp_path, monkeypatch):
  arguments = {"name": "rte.tfds.t5"}
  before = cache.fingerprint(arguments, ("tasks", "tasks.rte"))
  assert before == cache.fingerprint(arguments, ("tasks", "tasks.rte"))
  assert before != cache.fingerprint(arguments, ())
  for content in (b"one", b"two"):
    file = tmp_path / f"{content.decode()}.model"
    file.write_bytes(content)
    monkeypatch.setenv("PROMOT_T5_VOCABULARY", str(file))
    after = cache.fingerprint(arguments, ("tasks", "tasks.rte"))
    assert after != before
    before = after


def test_a_changed_data_set_is_read_anew(tmp_path):
  records = [record("first", "answer")]
  register("toy_changing", records)
  version = ["one"]

  def read(path=tmp_path):
    return load("toy_changing", "train", {}, cache_dir=path, source=lambda: version[0])

  before = read()
  records.append(record("second", "answer"))
  assert len(read()) == 1  # from the cache, which nothing contradicts
  version[0] = "two"
  after = read()
  assert (len(before), len(after)) == (1, 2)
  assert before.fingerprint != after.fingerprint
  assert before.content.digest != after.content.digest
  assert after.content.about == "2 records of toy_changing train"


def test_a_data_set_that_is_prepared_by_reading_it_is_found_again(tmp_path):
  register("toy_prepared", [record("first", "answer")])
  states = iter(["", "prepared", "prepared"])
  made = [
    load("toy_prepared", "train", {}, cache_dir=tmp_path, source=lambda: next(states))
    for _ in range(2)
  ]
  assert made[0].fingerprint == made[1].fingerprint
  assert len(list(tmp_path.iterdir())) == 1


def test_the_content_of_examples_includes_every_accepted_answer(tmp_path):
  register("toy_answers", [record("first", "answer", "other")])
  register("toy_answers_2", [record("first", "answer", "another")])
  digests = [load(name, "train", {}).content.digest for name in ("toy_answers", "toy_answers_2")]
  assert digests[0] != digests[1]


def test_a_damaged_cache_file_is_made_again(tmp_path):
  lengths = {"inputs": 12}
  made = load("toy", "train", lengths, cache_dir=tmp_path)
  (file,) = tmp_path.iterdir()
  content = file.read_bytes()
  for damage in (b"", content[: len(content) // 2], b"no zip file"):
    file.write_bytes(damage)
    again = load("toy", "train", lengths, cache_dir=tmp_path)
    assert [tokens.tolist() for tokens in again.inputs] == [t.tolist() for t in made.inputs]
    assert file.read_bytes() != damage


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(tmp_path):
  below_a_file = tmp_path / "file"
  below_a_file.write_text("")
  assert len(load("toy", "train", {}, cache_dir=below_a_file / "cache")) == 8


def test_no_partial_file_is_left_where_the_cache_is(tmp_path):
  load("toy", "train", {}, cache_dir=tmp_path)
  assert [pathlib.Path(file).suffix for file in tmp_path.iterdir()] == [".npz"]
