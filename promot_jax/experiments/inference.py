"""Answers to texts that belong to no task, in the order in which they came."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from promot_jax import partitioning
from promot_jax.data import examples as example_lists
from promot_jax.data import joining, vocabularies
from promot_jax.data.batches import EvalBatches, read_only
from promot_jax.data.features import Feature
from promot_jax.data.vocabularies import Vocabulary
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding import scoring
from promot_jax.errors import ConfigError, DataError
from promot_jax.experiments import shapes, writing
from promot_jax.experiments.reader import text_vocabulary
from promot_jax.experiments.runner import Runner
from promot_jax.metrics import postprocess
from promot_jax.models import preparation
from promot_jax.token_ids import TokenIds
from tasks import catalog


def made_with(runner: Runner, *, tuned: bool) -> dict[str, str]:
  """What changes an answer besides strategy and lengths, by words that a message can show.

  A user's own vocabulary counts with its content, not only with its name.
  """
  experiment = runner.experiment
  plain = writing.written(experiment, tuned=tuned)
  words = text_vocabulary(plain)
  found = {
    "vocabulary": plain.vocabulary,
    "writing": json.dumps(writing.described(words)),
    "stop": repr(writing.stop(words, tuned=tuned)),
    "token ids": repr(TokenIds.of(experiment.backbone)),
  }
  if vocabularies.reference(plain.vocabulary) is not None:
    found["words"] = f"{plain.vocabulary} (sha {vocabularies.digest(plain.vocabulary)[:16]})"
  return found


def ends_with_line(runner: Runner, *, tuned: bool) -> bool:
  """Whether an answer ends at its first line feed (`writing.stop`)."""
  return bool(writing.stop(_words(runner, tuned), tuned=tuned))


def encode(runner: Runner, texts: Sequence[str], *, tuned: bool) -> tuple[list[np.ndarray], int]:
  """(tokens of each text in its model's frame, how many of them a model is given at most).

  Args:
    texts: inputs as a task would render them, without end of sequence or separator.
    tuned: whether the model reads texts in the form that it was tuned in (`writing`).
  """
  words = _words(runner, tuned)
  tokens = [joining.input_tokens(words, text) for text in texts]
  return tokens, runner.experiment.evaluation.feature_lengths["inputs"]


def cut(runner: Runner, tokens: np.ndarray, limit: int, *, tuned: bool) -> np.ndarray:
  """An over-long input without its end, or start where an answer goes on with it; framed as before."""
  words = _words(runner, tuned)
  return words.input_frame.cut(tokens, limit, at="start" if words.joining.one_text else "end")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
  """What questions hold beside their inputs: features that the method reads, one array a question.

  room: the largest of each dimension, through all questions (`Examples.room`).
  """

  kinds: Mapping[str, Feature] = dataclasses.field(default_factory=dict)
  features: Mapping[str, Sequence[np.ndarray]] = dataclasses.field(default_factory=dict)
  room: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

  def of(self, places: Sequence[int]) -> "Given":
    """Of the questions with these numbers, in their order."""
    chosen = {name: [arrays[n] for n in places] for name, arrays in self.features.items()}
    return dataclasses.replace(self, features=chosen)


def features(
  runner: Runner,
  questions: Sequence[tuple[str, str, Mapping[str, Any]]],
  *,
  tuned: bool,
  task: str | None = None,
) -> Given:
  """The features that the attached method reads and the tuned task declares, made of the questions.

  Args:
    questions: (where it stands, input, what the line holds) of each.
    tuned: as for `encode`; a detached method reads nothing.
    task: of several tuned tasks the one that is meant; None: the first.

  Raises:
    DataError: a line lacks what a feature is made of, or holds something else.
  """
  experiment = runner.experiment
  name = task or experiment.tasks[0]
  found = catalog.find(name).features
  if not found or not tuned or experiment.method is None:
    return Given()
  read = preparation.names_read(shapes.abstract_model(experiment))
  wanted = {each: found[each] for each in found if {each, f"{each}_mask"} & read}
  files, words = experiment.files_of(name), _words(runner, tuned)
  arrays: dict[str, list[np.ndarray]] = {each: [] for each in wanted}
  for where, text, line in questions if wanted else ():
    record = files.record_of(line, where=where) if files is not None else line
    for each, feature in wanted.items():
      try:
        array = feature.array(each, record, vocabulary=words, after=text, target=experiment.targets)
      except DataError as error:
        raise DataError(f"{where}: {error}") from error
      arrays[each].append(array)
  kinds = {each: feature.kind for each, feature in wanted.items()}
  return Given(
    kinds=kinds,
    features=arrays,
    room={each: kind.extents(arrays[each]) for each, kind in kinds.items()},
  )


def answer(
  runner: Runner,
  model: nnx.Module,
  inputs: Sequence[np.ndarray],
  *,
  tuned: bool,
  bank_row: int = 0,
  given: Given = Given(),
) -> list[tuple[str, float]]:
  """(answer, score of the decoding strategy) of each input.

  Args:
    runner: gives vocabulary, decoding strategy, lengths and devices.
    model: with the method attached or detached, as wanted.
    inputs: tokens, as `encode` gives them, no longer than its limit.
    tuned: as for `encode`.
    bank_row: of the method's bank.
    given: what else the method reads of each input.
  """
  plan = runner.experiment.evaluation
  longest = plan.feature_lengths["targets"]
  words = _words(runner, tuned)
  stop = writing.stop(words, tuned=tuned)
  examples = example_lists.in_memory(
    "infer",
    inputs,
    [words.target_frame.around([])] * len(inputs),
    [{"inputs": "", "targets": "", "answers": []}] * len(inputs),
    prompt_id=bank_row,
    **vars(given),
  )
  answers: list[tuple[str, float]] = [("", 0.0)] * len(inputs)
  special = TokenIds.of(runner.experiment.backbone)
  for batch, rows in EvalBatches(examples, batch_size=plan.batch_size, special=special):
    source = read_only(batch)
    result = generate_lib.generate(
      model, runner.place(source), strategy=plan.strategy, max_length=longest
    )
    best, scores = (partitioning.fetch(array)[:, 0] for array in (result.tokens, result.scores))
    for place, row in enumerate(rows):
      if row >= 0:
        text = postprocess.until(words.decode(special.before_end(best[place])), stop)
        answers[row] = (postprocess.between_sentinels(text), float(scores[place]))
  return answers


def labels(runner: Runner, task: str | None = None) -> tuple[str, ...]:
  """The words that the tuned task answers with.

  Args:
    task: of several tuned tasks the one that is meant; None: the first.

  Raises:
    ConfigError: its answers are free text.
  """
  experiment = runner.experiment
  name = task or catalog.split_shots(experiment.tasks[0])[0]
  found = catalog.find(name).labels
  if not found or experiment.targets != "raw":
    why = "its answers are free text" if not found else f"TARGETS='{experiment.targets}'"
    raise ConfigError(f"--probabilities: task '{name}' has no labels to compare ({why}).")
  return found


def probabilities(
  runner: Runner,
  model: nnx.Module,
  texts: Sequence[str],
  inputs: Sequence[np.ndarray],
  words: Sequence[str],
  *,
  tuned: bool,
  bank_row: int = 0,
  given: Given = Given(),
) -> list[dict[str, float]]:
  """p(label | input) among a few labels: softmax over the sums of their tokens' log-probabilities.

  Args:
    texts: what `inputs`, their tokens, were made of.
    words: the labels.
    model, tuned, bank_row, given: as for `answer`.
  """
  vocabulary = _words(runner, tuned)
  targets = [joining.option_tokens(vocabulary, text, word) for text in texts for word in words]
  count = len(targets)
  examples = example_lists.in_memory(
    "labels",
    [tokens for tokens in inputs for _ in words],
    targets,
    [{"inputs": "", "targets": "", "answers": []}] * count,
    prompt_id=bank_row,
    **vars(given.of([place for place in range(len(inputs)) for _ in words])),
  )
  scores = np.zeros(count)
  special = TokenIds.of(runner.experiment.backbone)
  size = runner.experiment.evaluation.batch_size
  for batch, rows in EvalBatches(examples, batch_size=size, special=special):
    found = partitioning.fetch(scoring.score(model, runner.place(batch)))
    scores[rows[rows >= 0]] = found[rows >= 0]
  table = scores.reshape(len(texts), len(words))
  table = np.exp(table - table.max(axis=1, keepdims=True))
  table /= table.sum(axis=1, keepdims=True)
  return [dict(zip(words, map(float, row))) for row in table]


def _words(runner: Runner, tuned: bool) -> Vocabulary:
  return text_vocabulary(writing.written(runner.experiment, tuned=tuned))
