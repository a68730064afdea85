"""Answers to texts, in the order in which they came, and shares of given answers."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from promot_jax import partitioning
from promot_jax.data import examples as example_lists
from promot_jax.data import joining, vocabularies
from promot_jax.data.batches import EvalBatches, read_only
from promot_jax.data.features import Feature
from promot_jax.data.vocabularies import Vocabulary
from promot_jax.decoding import classes as class_scores
from promot_jax.decoding import generate as generate_lib
from promot_jax.decoding import scoring
from promot_jax.decoding.strategies import Greedy, Strategy
from promot_jax.metrics import postprocess
from promot_jax.token_ids import TokenIds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
  """How a model is asked: all that an answer depends on besides the model and the text.

  vocabulary: writes inputs and reads outputs, framed as the model knows them.
  stop: texts at which an answer ends, besides eos.
  clean: what an answer is of the text up to there.
  special: the model's padding, end and start of decoding.
  strategy: how answers are decoded.
  longest_input, longest_answer: in tokens.
  batch_size: rows of every batch.
  bank_row: of the model's method, where that has one for each task.
  seed: of the keys of strategies that draw.
  """

  vocabulary: Vocabulary
  special: TokenIds
  stop: tuple[str, ...] = ()
  clean: Callable[[str], str] = postprocess.between_sentinels
  strategy: Strategy = Greedy()  # noqa: RUF009 (a frozen value)
  longest_input: int = 512
  longest_answer: int = 64
  batch_size: int = 32
  bank_row: int = 0
  seed: int = 0

  @property
  def ends_with_line(self) -> bool:
    """Whether an answer ends at its first line feed."""
    return "\n" in self.stop


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


class Scored(NamedTuple):
  """What a model says of one given answer; see `scoring.Scores`."""

  log_p: float
  greedy: bool


Place = Callable[[Mapping[str, Any]], Any]
"""Puts a host batch onto the devices."""


def encode(form: Form, texts: Sequence[str]) -> list[np.ndarray]:
  """Tokens of each text in its model's frame, however many there are.

  Args:
    texts: inputs as a task would render them, without end of sequence or separator.
  """
  return [joining.input_tokens(form.vocabulary, text) for text in texts]


def cut(form: Form, tokens: np.ndarray) -> np.ndarray:
  """An over-long input without its end, or start where an answer goes on with it; framed as before."""
  words = form.vocabulary
  return words.input_frame.cut(
    tokens, form.longest_input, at="start" if words.joining.one_text else "end"
  )


def answer(
  form: Form,
  model: nnx.Module,
  inputs: Sequence[np.ndarray],
  *,
  place: Place,
  given: Given = Given(),
  first: int = 0,
) -> list[tuple[str, float]]:
  """(answer, score of the decoding strategy) of each input.

  Args:
    model: with its method attached or detached, as wanted.
    inputs: tokens, as `encode` gives them, no longer than the form's longest.
    given: what else the method reads of each input.
    first: number of the first input among all that are asked, so that no two draw alike.
  """
  words, examples = form.vocabulary, _without_answers(form, inputs, given)
  answers: list[tuple[str, float]] = [("", 0.0)] * len(inputs)
  # The number of the first input, and below that of each batch's first row: no two batches of a
  # file draw alike, and a repeated command draws as before.
  keys = jax.random.fold_in(jax.random.key(form.seed), first)
  for batch, rows in EvalBatches(examples, batch_size=form.batch_size, special=form.special):
    result = generate_lib.generate(
      model,
      # Without decoder features, which the empty answers would be: decoding begins from the start
      # token.
      place(read_only(batch)),
      strategy=form.strategy,
      max_length=form.longest_answer,
      key=jax.random.fold_in(keys, int(rows[0])),
      stop=vocabularies.tokens_with(words, form.stop),
    )
    best, scores = (partitioning.fetch(array)[:, 0] for array in (result.tokens, result.scores))
    for position, row in enumerate(rows):
      # Rows of -1 only fill the last batch to its compiled shape.
      if row >= 0:
        # Ends first as tokens, where eos is no text, then as text: a stop may be a part of a
        # token.
        written = words.decode(form.special.before_end(best[position]))
        text = form.clean(postprocess.until(written, form.stop))
        answers[row] = (text, float(scores[position]))
  return answers


def of_classes(
  form: Form,
  model: nnx.Module,
  inputs: Sequence[np.ndarray],
  classes: Sequence[str],
  *,
  place: Place,
  given: Given = Given(),
) -> list[dict[str, float]]:
  """p(class | input) by the answer that each class is, as the model's prediction head has it.

  Args:
    model, inputs, given: as for `answer`.
    classes: the answers, in the head's order.
  """
  examples = _without_answers(form, inputs, given)
  found: list[dict[str, float]] = [{}] * len(inputs)
  for batch, rows in EvalBatches(examples, batch_size=form.batch_size, special=form.special):
    scores = partitioning.fetch(class_scores.log_probabilities(model, place(read_only(batch))))
    for own, row in zip(np.exp(scores), rows):
      if row >= 0:
        found[row] = dict(zip(classes, map(float, own), strict=True))
  return found


def probabilities(
  form: Form,
  model: nnx.Module,
  texts: Sequence[str],
  inputs: Sequence[np.ndarray],
  labels: Sequence[str],
  *,
  place: Place,
  given: Given = Given(),
) -> list[dict[str, float]]:
  """p(label | input) among a few labels: softmax over the sums of their tokens' log-probabilities.

  Args:
    model, given: as for `answer`.
    texts: what `inputs`, their tokens, were made of.
  """
  # The answer's tokens depend on the text before it where both are one text.
  targets = [
    joining.option_tokens(form.vocabulary, text, label) for text in texts for label in labels
  ]
  repeated = [number for number in range(len(inputs)) for _ in labels]
  found = of_answers(
    form,
    model,
    [inputs[number] for number in repeated],
    targets,
    place=place,
    given=given.of(repeated),
  )
  scores = np.asarray([each.log_p for each in found])
  table = scores.reshape(len(texts), len(labels))
  # The largest is taken off first: sums of log-probabilities of long answers underflow in exp.
  table = np.exp(table - table.max(axis=1, keepdims=True))
  table /= table.sum(axis=1, keepdims=True)
  return [dict(zip(labels, map(float, row))) for row in table]


def of_answers(
  form: Form,
  model: nnx.Module,
  inputs: Sequence[np.ndarray],
  targets: Sequence[np.ndarray],
  *,
  place: Place,
  given: Given = Given(),
) -> list[Scored]:
  """How probable a given answer to each input is.

  Args:
    model, given: as for `answer`.
    inputs, targets: tokens with what belongs around them.
  """
  examples = example_lists.in_memory(
    "answers",
    inputs,
    targets,
    [{"inputs": "", "targets": "", "answers": []}] * len(inputs),
    prompt_id=form.bank_row,
    **vars(given),
  )
  found = [Scored(0.0, True)] * len(inputs)
  for batch, rows in EvalBatches(examples, batch_size=form.batch_size, special=form.special):
    scored = scoring.scores(model, place(batch))
    log_p, greedy = (partitioning.fetch(array) for array in scored)
    for position, row in enumerate(rows):
      if row >= 0:
        found[row] = Scored(float(log_p[position]), bool(greedy[position]))
  return found


def _without_answers(
  form: Form, inputs: Sequence[np.ndarray], given: Given
) -> example_lists.Examples:
  return example_lists.in_memory(
    "infer",
    inputs,
    # Examples need targets; `read_only` takes these out again.
    [form.vocabulary.target_frame.around([])] * len(inputs),
    [{"inputs": "", "targets": "", "answers": []}] * len(inputs),
    prompt_id=form.bank_row,
    **vars(given),
  )
