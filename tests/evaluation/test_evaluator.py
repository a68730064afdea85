"""The evaluator with a model whose outputs are known by construction, and with a tiny T5."""

import dataclasses
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tiny_models
from promot_jax import errors
from promot_jax.data.examples import Examples
from promot_jax.data.length_report import LengthReport
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding import strategies
from promot_jax.evaluation import evaluator, results, ways
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.evaluator import Batching, EvalTask, Kept, Setting, Subject
from promot_jax.metrics import accuracy, exact_match, format_share, rouge
from promot_jax.token_ids import T5, TokenIds

VOCABULARY = 40


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Nothing:
  """A cache of a model that remembers nothing; rows are kept only to be countable."""

  rows: jax.Array

  def repeat(self, count):
    return Nothing(jnp.repeat(self.rows, count))

  def reorder(self, indices):
    return Nothing(self.rows[indices])


class Echo(nnx.Module):
  """Writes the input's first token plus `offset` plus its prompt id, then ends."""

  token_ids = T5

  def __init__(self, offset):
    self.offset = nnx.Param(jnp.asarray(offset, jnp.int32))

  def prefill(self, batch, *, max_length):
    first = batch["encoder_input_tokens"][:, 0] + self.offset[...] + batch["prompt_ids"]
    return 9.0 * jax.nn.one_hot(first, VOCABULARY), Nothing(first)

  def decode_step(self, tokens, cache):
    return 9.0 * jax.nn.one_hot(jnp.ones_like(tokens), VOCABULARY), cache


def examples(inputs, targets):
  """Examples whose records say nothing."""
  return Examples(
    name="toy",
    split="",
    features={
      "inputs": inputs,
      "targets": targets,
      "prompt_ids": np.zeros(len(inputs), np.int32),
    },
    records=[{} for _ in inputs],
    lengths=LengthReport(examples=len(inputs), inputs_limit=None, targets_limit=None),
  )


def decode(ids):
  return " ".join(f"w{token}" for token in ids)


def echo_task(label, firsts, *, offset=0, shots=1, lengths=(3, 9, 17, 5), **options):
  """A task whose right answers are what Echo writes with this offset."""
  inputs = [
    np.asarray([first] + [2] * (lengths[i % len(lengths)] - 2) + [1], np.int32)
    for i, first in enumerate(firsts)
  ]
  targets = [np.asarray([first + offset, 1], np.int32) for first in firsts]
  return EvalTask(
    label=label,
    shots=shots,
    examples=examples(inputs, targets),
    metric_fns=[accuracy.accuracy],
    **options,
  )


SETTING = Setting(special=T5, max_target_length=3)
BATCHING = Batching(batch_size=4, buckets=(8, 24))


def subject(model, **options):
  """A model that is there, or a function that makes it."""
  make = model if inspect.isfunction(model) else lambda: model
  return Subject(make=make, decode=decode, **options)


def run(
  model, tasks, *, store=None, checkpoint="model", batching=BATCHING, progress=None, **options
):
  """Results of a model; other options are those of its setting and of the subject."""
  of_setting = {field.name for field in dataclasses.fields(Setting)}
  changes = {name: options.pop(name) for name in of_setting & set(options)}
  return evaluator.evaluate(
    subject(model, **options),
    tasks,
    setting=dataclasses.replace(SETTING, **changes),
    batching=batching,
    kept=None if store is None else Kept(store=store, checkpoint=checkpoint),
    progress=progress,
  )


def test_every_output_returns_to_its_own_example_whatever_the_batches():
  tasks = [echo_task("a", range(5, 16)), echo_task("b", range(20, 27), lengths=(20, 4, 7))]
  found = run(Echo(0), tasks)
  assert [(result.task, result.count, result.score) for result in found] == [
    ("a", 11, 100.0),
    ("b", 7, 100.0),
  ]


def test_a_result_says_by_which_rule_answers_were_compared():
  task = dataclasses.replace(echo_task("qa", [5]), metric_fns=[exact_match.trivia_qa])
  (result,) = run(Echo(0), [task])
  assert result.settings["metrics"] == ["ExactMatch(normalization='trivia_qa')"]


def test_a_detached_task_sees_the_model_without_its_method():
  tasks = [
    echo_task("tuned", [5, 6, 7], offset=3, method="attached", shots=0),
    echo_task("unseen", [8, 9], offset=0, method="detached"),
    echo_task("unseen", [8, 9], offset=3, method="attached"),
  ]
  found = run(Echo(3), tasks, detach=lambda model: Echo(0))
  assert [result.score for result in found] == [100.0, 100.0, 100.0]
  assert [result.method for result in found] == ["attached", "detached", "attached"]


def test_each_task_uses_its_own_row_of_the_prompt_bank():
  tasks = [
    echo_task("rte", [5, 6], offset=0, method="attached", bank_row=0),
    echo_task("wmt14_en_fr", [5, 6], offset=1, method="attached", bank_row=1),
  ]
  assert [result.score for result in run(Echo(0), tasks)] == [100.0, 100.0]


def test_detached_without_a_way_to_detach_is_refused():
  with pytest.raises(errors.ConfigError, match="no way to detach"):
    run(Echo(0), [echo_task("cb", [5], method="detached")])


def test_an_unknown_state_of_the_method_and_an_empty_task_are_refused():
  with pytest.raises(errors.ConfigError, match="'on'"):
    echo_task("cb", [5], method="on")
  with pytest.raises(errors.DataError, match="no examples"):
    run(Echo(0), [echo_task("cb", [])])


def test_equal_shapes_are_compiled_once_for_all_tasks_and_models():
  generate_lib.compiled.clear_cache()
  tasks = [echo_task(name, range(5, 12)) for name in ("a", "b", "c")]
  run(Echo(0), tasks)
  run(Echo(1), tasks)
  assert generate_lib.compiled._cache_size() <= 2  # the two buckets


def test_predictions_are_saved_with_input_targets_and_raw_output(tmp_path):
  store = results.ResultStore(tmp_path)
  task = echo_task("cb", [5, 6], postprocess=str.upper)
  task = dataclasses.replace(
    task, references=lambda record: ["W5", "x"], metric_fns=[exact_match.exact_match]
  )
  (result,) = run(Echo(0), [task], store=store, checkpoint="step-7")
  first, second = store.predictions("step-7", result)
  assert (first.input, first.raw, first.prediction) == ("w5 w2", "w5", "W5")
  assert (first.targets, first.score, second.score) == (["W5", "x"], 100.0, 0.0)
  assert first.log_probability < 0
  assert result.scores == {"exact_match": 50.0}


def test_answers_of_the_record_are_the_accepted_ones(tmp_path):
  task = echo_task("trivia_qa", [5, 6])
  task.examples.records[:] = [{"answers": ["no", b"w5"]}, {"answers": ["no"]}]
  (result,) = run(Echo(0), [dataclasses.replace(task, metric_fns=[exact_match.exact_match])])
  assert result.score == 50.0


def test_a_finished_evaluation_is_found_and_not_repeated(tmp_path):
  store = results.ResultStore(tmp_path)
  tasks = [echo_task("a", range(5, 16)), echo_task("b", [20, 21])]

  def no_model():
    raise AssertionError("nothing is left to run")

  first = run(Echo(0), tasks, store=store, checkpoint="best")
  again = run(no_model, tasks, store=store, checkpoint="best")
  assert [r.scores for r in again] == [r.scores for r in first]
  for checkpoint, left in (("best", []), ("other", tasks)):
    kept = Kept(store=store, checkpoint=checkpoint)
    assert evaluator.unfinished(subject(no_model), tasks, setting=SETTING, kept=kept) == left


@pytest.mark.parametrize(
  "change",
  [
    {"strategy": strategies.Beam(width=2)},
    {"max_target_length": 5},
    {"identity": "other weights"},
    {"special": dataclasses.replace(T5, output_ends=(1, 99))},
    {"special": dataclasses.replace(T5, forced_last=1)},
    {"special": dataclasses.replace(T5, decoder_start=2)},
  ],
)
def test_other_settings_are_evaluated_again(tmp_path, change):
  store = results.ResultStore(tmp_path)
  tasks = [echo_task("a", [5, 6])]
  (old,) = run(Echo(1), tasks, store=store)
  (new,) = run(Echo(0), tasks, store=store, **change)
  assert (old.score, new.score) == (0.0, 100.0)
  if "identity" not in change:  # other weights replace a score, another way lies beside it
    (kept,) = run(Echo(0), tasks, store=store)
    assert kept.score == 0.0


def test_draws_of_another_seed_are_another_result():
  (task,) = [echo_task("a", [5, 6])]

  def fingerprint(strategy, seed):
    return task_lib.plan(task, Setting(special=T5, strategy=strategy, seed=seed)).fingerprint

  assert fingerprint(strategies.Sample(), 0) != fingerprint(strategies.Sample(), 1)
  assert fingerprint(strategies.Greedy(), 0) == fingerprint(strategies.Greedy(), 1)


def three_questions(**options):
  made = examples(
    [np.asarray(tokens, np.int32) for tokens in ([5, 6, 1], [7, 1], [8, 9, 9, 1])],
    [np.asarray(tokens, np.int32) for tokens in ([3, 1], [4, 1], [3, 1])],
  )
  own = {
    "label": "rte",
    "shots": 1,
    "examples": made.with_prompt_ids(np.asarray([0, 1, 0])),
    "metric_fns": [accuracy.accuracy],
    "metric": "accuracy",
    "split": "validation",
  }
  return EvalTask(**{**own, **options})


BART = TokenIds(pad=1, eos=2, decoder_start=2, forced_first=0, forced_last=2)


@pytest.mark.parametrize(
  "task, setting, identity, fingerprint, way",
  [
    (
      three_questions(),
      Setting(special=T5, max_target_length=16),
      "start",
      "4c8a69b67b3f53fc91bd74b7f119e7e772b8a99cad188a106eddf5c273df95e2",
      "d4db098d",
    ),
    (
      three_questions(
        method="attached",
        bank_row=1,
        max_target_length=9,
        stop=["\n"],
        writing={"one text": True},
      ),
      Setting(
        special=BART,
        strategy=strategies.Beam(width=2),
        max_target_length=16,
        format_metric=format_share.FormatShare(),
      ),
      "start/1",
      "2ca98cc8e14c15af01d1bc9f4312fa059aeb19fcb731bc74c94ce0d013b96871",
      "310dda87",
    ),
    (
      three_questions(options={"yes": [3, 1], "no": [4, 1]}, method="detached"),
      Setting(special=T5, max_target_length=16, seed=3),
      "start",
      "41e553f2e2de58284353be0588db2078f23d24cf97eb027a242a17c2d7bd59d9",
      "e14af40a",
    ),
    (
      three_questions(metric_fns=[rouge.rouge, accuracy.accuracy]),
      Setting(
        special=dataclasses.replace(T5, output_ends=(1, 2)),
        strategy=strategies.Sample(top_p=0.9),
        max_target_length=16,
        seed=3,
      ),
      "start",
      "f29b93489268aa99d6a81a00c32b6fa3e2147ec6de8240c1e584f7a935854f3f",
      "2739b989",
    ),
  ],
  ids=["greedy", "beam", "ranked", "sample"],
)
def test_results_of_earlier_versions_are_found(task, setting, identity, fingerprint, way):
  """The numbers are those that version 0.1.0 stored on 2026-11-28, before settings were a value."""
  plan = task_lib.plan(task, setting, identity=identity)
  assert (plan.fingerprint, ways.of(plan.settings)) == (fingerprint, way)


def test_a_stopped_evaluation_goes_on_where_it_stopped(tmp_path):
  store = results.ResultStore(tmp_path)
  tasks = [echo_task("a", range(5, 16)), echo_task("b", range(20, 27))]

  class Stopped(Exception):
    pass

  def stop(progress):
    if progress.done >= 8:
      raise Stopped

  with pytest.raises(Stopped):
    run(Echo(0), tasks, store=store, progress=stop)
  # The machine died while it wrote the next line.
  (journal,) = tmp_path.glob("*/outputs.partial.jsonl")
  with journal.open("a") as file:
    file.write('{"fingerprint": "cut')

  seen = []
  found = run(Echo(0), tasks, store=store, progress=lambda p: seen.append((p.done, p.total)))
  assert seen[0] == (8, 18)  # what was kept, before anything runs
  assert seen[1] == (12, 18)  # 4 more are the first new batch
  assert seen[-1] == (18, 18)
  assert [result.score for result in found] == [100.0, 100.0]
  indices = [[p.index for p in store.predictions("model", result)] for result in found]
  assert indices == [list(range(11)), list(range(7))]
  assert not journal.exists()


def test_progress_counts_tasks_of_which_every_example_is_done(tmp_path):
  store = results.ResultStore(tmp_path)
  first = echo_task("a", range(5, 9))
  run(Echo(0), [first], store=store)
  seen = []
  run(Echo(0), [first, echo_task("b", range(20, 27))], store=store, progress=seen.append)
  assert [(state.tasks_done, state.tasks) for state in seen] == [(1, 2), (1, 2), (2, 2)]
  assert [(state.done, state.total) for state in seen] == [(4, 11), (8, 11), (11, 11)]
  # Inputs of 17, 17, 9 and 9 tokens in the bucket of 24, then 5, 3, 3 and a filling row in that of 8; each writes
  # a word and its end.
  counted = [(state.tokens.computed, state.tokens.needed) for state in seen]
  assert counted == [(0, 0), (4 * 24 + 4 * 2, 52 + 4 * 2), (4 * 32 + 8 * 2, 63 + 7 * 2)]


def test_share_of_the_tuned_format_looks_at_whole_answers():
  share = format_share.FormatShare(labels=("w5",))
  task = echo_task("xsum", [5, 6, 7, 8], postprocess=lambda text: "w5")
  (result,) = run(Echo(0), [task], format_metric=share)
  assert result.scores["format_share"] == 25.0
  assert result.settings["format"] == "outputs that are exactly w5"


def test_the_headline_is_the_first_score_and_has_a_standard_error():
  (result,) = run(Echo(0), [echo_task("a", [5, 6, 7, 8])])
  assert (result.metric, result.standard_error) == ("accuracy", 0.0)


# With a real backbone: batches and padding must not change what is written or scored.


@pytest.fixture(scope="module")
def tiny():
  return tiny_models.tiny("t5", vocab_size=VOCABULARY, decoder_layers=1)


def token_task(label, lengths, seed, **options):
  random = np.random.default_rng(seed)
  inputs = [np.append(random.integers(2, VOCABULARY, n - 1), 1).astype(np.int32) for n in lengths]
  targets = [np.asarray([3, 1], np.int32) for _ in lengths]
  return EvalTask(
    label=label,
    shots=1,
    examples=examples(inputs, targets),
    metric_fns=[accuracy.accuracy],
    **options,
  )


def test_pooled_outputs_equal_those_of_single_examples(tiny, tmp_path):
  store = results.ResultStore(tmp_path)
  tasks = [token_task("a", (3, 12, 12), 1), token_task("b", (12, 3), 2)]
  found = run(tiny, tasks, store=store, max_target_length=5, batching=Batching(buckets=2))
  for task, result in zip(tasks, found, strict=True):
    for prediction in store.predictions("model", result):
      tokens = task.examples.inputs[prediction.index][None]
      batch = {"encoder_input_tokens": tokens, "prompt_ids": np.zeros(1, np.int32)}
      alone = generate_lib.generate(tiny, batch, strategy=strategies.Greedy(), max_length=5)
      ids = list(np.asarray(alone.tokens)[0, 0])
      expected = ids[: next((i for i, t in enumerate(ids) if t in (0, 1)), len(ids))]
      assert prediction.raw == decode(expected)
      assert prediction.log_probability == pytest.approx(float(alone.scores[0, 0]), abs=1e-4)


def test_the_most_probable_option_is_the_prediction(tiny, tmp_path):
  store = results.ResultStore(tmp_path)
  options = {"True": [7, 1], "False": [9, 4, 1]}
  task = token_task("rte", (6, 6, 6), 3, options=options)
  (result,) = run(tiny, [task], store=store)
  logits = jax.jit(lambda batch: tiny.logits(tiny.hidden(batch)))
  for prediction in store.predictions("model", result):
    scores = {
      name: _log_probability(logits, task.examples.inputs[prediction.index], ids)
      for name, ids in options.items()
    }
    assert prediction.prediction == max(scores, key=scores.get)
    assert prediction.log_probability == pytest.approx(max(scores.values()), abs=1e-4)


def _log_probability(logits_of, tokens, target):
  """Sum of log-softmax values at the target tokens, in numpy, for one unpadded example."""
  batch = {
    "encoder_input_tokens": np.asarray(tokens)[None],
    "decoder_input_tokens": np.asarray([[0, *target[:-1]]], np.int32),
    "decoder_target_tokens": np.asarray([target], np.int32),
  }
  logits = np.asarray(logits_of(batch), np.float64)[0]
  log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  return sum(log_p[i, token] for i, token in enumerate(target))
