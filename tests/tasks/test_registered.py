"""Demonstrations and metrics of tasks that others registered: as for ours, and as seqio's Evaluator has them."""

import json

import numpy as np
import pytest

from promot_jax.cli.main import main
from promot_jax.data import few_shot
from promot_jax.errors import ConfigError, DataError
from promot_jax.evaluation import rows, scorer
from promot_jax.evaluation import task as task_lib
from promot_jax.evaluation.scorer import Output
from promot_jax.evaluation.setting import Setting
from promot_jax.token_ids import T5
from tasks import catalog, reading, registered

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
clu_metrics = pytest.importorskip("clu.metrics")
flax = pytest.importorskip("flax")

ROWS = 12
LENGTHS = {"inputs": 200, "targets": 9}


def text(split, row):
  return f"{split} {row}: the {('red', 'blue')[row % 2]} dog"


def answer(row):
  return ("red", "blue")[row % 2]


def dataset(split, shuffle_files=False, seed=None):
  numbers = range(ROWS if split == "train" else 5)
  return tf.data.Dataset.from_tensor_slices(
    {
      "text": [text(split, row) for row in numbers],
      "colour": [answer(row) for row in numbers],
      "weight": [float(row) for row in numbers],
    }
  )


def texts(ds):
  return ds.map(
    lambda row: {
      "inputs": tf.strings.join([row["text"], " answer:"]),
      "targets": row["colour"],
      "weight": row["weight"],
    }
  )


def upper(ds):
  return ds.map(lambda row: {**row, "targets": tf.strings.upper(row["targets"])})


def postprocess(output, example=None, is_target=False):
  return {"text": output.lower(), "weight": float(example["weight"])}


def right(targets, predictions):
  pairs = zip(targets, predictions)
  return {"right": sum(one["weight"] * (one["text"] == two["text"]) for one, two in pairs)}


def likely(targets, scores):
  return {"likely": sum(one["weight"] * score for one, score in zip(targets, scores))}


def sure(targets, predictions, aux_values):
  pairs = zip(targets, predictions, aux_values["scores"])
  return {"sure": sum(score for one, two, score in pairs if one["text"] == two["text"])}


@flax.struct.dataclass
class Longest(seqio.metrics.Metric):
  """The largest number of tokens, times the examples: of outputs and of examples."""

  model_output_type: seqio.metrics.ModelOutputType = seqio.metrics.ModelOutputType.PREDICTION
  longest: int = 0

  def from_model_output(self, inputs, model_output, features, target_field_name="targets"):
    pad = features[target_field_name].vocabulary.pad_id
    counts = [int((np.asarray(row) != pad).sum()) for row in model_output]
    return self.replace(longest=max(counts) * len(list(inputs)))

  def compute(self):
    return {"longest": self.longest}


class Collected(seqio.metrics.CollectingMetric):
  """Mean log p, by the protocol that collects first."""

  model_output_type = seqio.metrics.ModelOutputType.SCORE

  def actual_compute(self, examples, features, target_field_name="targets", cached_targets=None):
    values = np.asarray(self.values["model_output"])
    texts = [example["targets_pretokenized"].decode() for example in examples]
    targets = [postprocess(*each, is_target=True) for each in zip(texts, examples)]
    return {"mean": float(values.mean())}, {"targets": targets, "score": values}


INNER = Longest(model_output_type=seqio.metrics.ModelOutputType.SCORE_WITH_INTERMEDIATES)


def register(name, **changes):
  words = seqio.ByteVocabulary()
  options = {
    "source": seqio.FunctionDataSource(
      dataset, splits=["train", "validation"], num_input_examples={"train": ROWS, "validation": 5}
    ),
    "preprocessors": [
      texts,
      upper,
      seqio.preprocessors.tokenize,
      seqio.CacheDatasetPlaceholder(),
      seqio.preprocessors.append_eos_after_trim,
    ],
    "output_features": {"inputs": seqio.Feature(words), "targets": seqio.Feature(words)},
    "postprocess_fn": postprocess,
    "metric_fns": [right],
    **changes,
  }
  seqio.TaskRegistry.add(name, **options)


@pytest.fixture
def colours(request):
  """The registered task's name, removed afterwards."""
  name = "registered_colours"
  yield name
  if name in seqio.TaskRegistry.names():
    seqio.TaskRegistry.remove(name)


def test_demonstrations_are_drawn_as_for_our_own_tasks(colours):
  register(colours)
  pairs = [(f"{text('train', row)} answer:", answer(row).upper()) for row in range(ROWS)]
  pool = few_shot.Demonstrations(pairs)
  for split, shots, seed in (("train", 1, 0), ("validation", 4, 7)):
    name = f"{colours}_{shots}shot"
    found = reading.load_examples(name, split, LENGTHS, seed=seed)
    queries = [f"{text(split, row)} answer:" for row in range(len(found))]
    assert [record["inputs"] for record in found.records] == [
      pool.prompt(query, shots=shots, seed=seed) for query in queries
    ]
    assert found.lengths.cut_at == "start"  # the query stays
    assert found.records[1]["example"]["weight"] == 1.0
  assert name not in seqio.TaskRegistry.names()
  assert catalog.split_shots(name) == (colours, 4) and catalog.find(name).name == colours


def test_each_task_of_a_mixture_is_shown(colours, capsys):
  register(colours)
  seqio.MixtureRegistry.add("registered_mixture", [colours], default_rate=1.0)
  try:
    assert main(["inspect", "data", "registered_mixture_1shot", "--n=2"]) == 0
    assert f"{colours}_1shot, split validation, first 2 examples" in capsys.readouterr().out
    assert main(["inspect", "data", colours, "--n=1", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["targets"] == "RED"
  finally:
    seqio.MixtureRegistry.remove("registered_mixture")


def test_a_name_that_is_registered_anew_has_a_new_value(colours, monkeypatch):
  # The memory of what is gone is given to what comes next, and so may be its number.
  monkeypatch.setattr(registered, "id", lambda _: 1, raising=False)
  register(colours)
  first = registered.find(colours)
  assert registered.find(colours) is first
  seqio.TaskRegistry.remove(colours)
  register(colours, source=seqio.FunctionDataSource(dataset, splits=["train", "test"]))
  reports = [task.source("tfds").report for task in (first, registered.find(colours))]
  assert reports == ["validation", "test"]


def test_what_the_user_registered_under_such_a_name_is_his(colours):
  register(colours)
  register(f"{colours}_1shot")
  try:
    assert catalog.split_shots(f"{colours}_1shot") == (f"{colours}_1shot", 0)
    found = reading.load_examples(f"{colours}_1shot", "train", LENGTHS)
    assert found.records[0]["inputs"] == f"{text('train', 0)} answer:"
  finally:
    seqio.TaskRegistry.remove(f"{colours}_1shot")


def tokens_at_once(ds, output_features):
  words = output_features["inputs"].vocabulary
  return ds.map(
    lambda row: {"inputs": words.encode_tf(row["text"]), "targets": words.encode_tf(row["colour"])}
  )


def only(split):
  return seqio.FunctionDataSource(dataset, splits=[split])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"preprocessors": [tokens_at_once]},
      "no preprocessor behind which its inputs and targets are texts",
    ),
    ({"source": only("validation")}, "no split 'train' to take demonstrations from"),
  ],
)
def test_where_there_can_be_none_a_sentence_says_so(colours, changes, message):
  register(colours, **changes)
  with pytest.raises(ConfigError, match=message):
    reading.load_examples(f"{colours}_1shot", "validation", LENGTHS)


def test_a_pool_that_is_too_small_is_named(colours):
  def two(split, shuffle_files=False, seed=None):
    return dataset(split).take(2)

  register(colours, source=seqio.FunctionDataSource(two, splits=["train"]))
  with pytest.raises(DataError, match="offers only 1 labelled examples besides the query"):
    reading.load_examples(f"{colours}_4shot", "train", LENGTHS)


OUTPUTS = ["red", "BLUE", "green", "blue", "RED dog"]
SCORES = [-0.5, -1.5, -0.25, -2.0, -0.125]
LIKELIHOODS = [-3.0, -1.0, -0.5, -4.0, -2.25]


def by_seqio(name):
  """What seqio's Evaluator makes of these outputs."""
  words = seqio.ByteVocabulary()
  evaluator = seqio.Evaluator(
    name,
    seqio.EncDecFeatureConverter(pack=False),
    eval_split="validation",
    sequence_length=None,
    logger_cls=[],
  )
  longest = max(map(len, OUTPUTS))
  rows = [np.array([*words.encode(each), *[0] * (longest - len(each))]) for each in OUTPUTS]
  found, _ = evaluator.evaluate(
    compute_metrics=True,
    predict_fn=lambda ds: list(enumerate(rows)),
    score_fn=lambda ds: list(enumerate(LIKELIHOODS)),
    predict_with_aux_fn=lambda ds: (list(enumerate(rows)), {"scores": SCORES}),
  )
  return found.result()[name]


def by_us(name):
  """What our evaluation makes of them."""
  words = seqio.ByteVocabulary()
  found = catalog.find(name)
  task = task_lib.EvalTask(
    label=name,
    shots=0,
    examples=reading.load_examples(name, "validation", LENGTHS),
    metric_fns=found.metric_fns,
    postprocess=found.postprocess,
    references=found.references,
  )
  wanted = rows.of_task(0, task)
  outputs = {}
  for row in wanted:
    target = row.option == task_lib.TARGET
    score = (LIKELIHOODS if target else SCORES)[row.example]
    tokens = [] if target else words.encode(OUTPUTS[row.example])
    outputs[row.example, row.option] = Output(tokens=tokens, score=score)
  setting = Setting(special=T5)
  plan = task_lib.plan(task, setting)
  result, _ = scorer.score(
    task, plan, outputs=outputs, decode=lambda ids: words.decode(list(ids)), setting=setting
  )
  return result.scores, {row.option for row in wanted}


@pytest.mark.parametrize(
  ("metrics", "options"),
  [
    ({"metric_fns": [right, likely, sure]}, {0, task_lib.TARGET}),
    ({"metric_fns": [likely]}, {task_lib.TARGET}),
    ({"metric_fns": [right], "metric_objs": [Longest(), Collected]}, {0, task_lib.TARGET}),
    ({"metric_fns": [], "metric_objs": [Collected]}, {task_lib.TARGET}),
  ],
)
def test_every_kind_of_metric_gives_what_seqio_gives(colours, metrics, options):
  register(colours, **metrics)
  theirs = by_seqio(colours)
  ours, run = by_us(colours)
  assert ours == pytest.approx({name: float(value) for name, value in theirs.items()})
  assert run == options  # nothing is generated that no metric reads


@pytest.mark.parametrize(
  ("metrics", "message"),
  [
    ({"metric_fns": [lambda targets, answers: {}]}, "positional arguments"),
    (
      {"metric_objs": [INNER]},
      "a metric Longest of SCORE_WITH_INTERMEDIATES, and models here give",
    ),
    ({"metric_fns": []}, "has no metric"),
  ],
)
def test_a_metric_that_cannot_be_called_is_refused_before_anything_runs(colours, metrics, message):
  register(colours, **metrics)
  with pytest.raises(ConfigError, match=message):
    catalog.find(colours)


def test_a_target_whose_text_was_not_kept_is_read_from_its_tokens(colours):
  register(colours, preprocessors=[tokens_at_once], postprocess_fn=None)
  (first, *_) = reading.load_examples(colours, "train", LENGTHS).records
  assert first["targets"] == "red" == catalog.find(colours).references(first)
