"""From the outputs of a model to scores: text, predictions, metrics, standard errors.

Imports neither JAX nor TensorFlow.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.evaluation.records import Prediction, TaskResult
from promot_jax.evaluation.setting import Setting
from promot_jax.evaluation.task import TARGET, EvalTask
from promot_jax.metrics import confidence, model_outputs, postprocess
from promot_jax.metrics import metric as metric_lib
from promot_jax.metrics.model_outputs import ModelOutputs
from promot_jax.token_ids import TokenIds


@dataclasses.dataclass(frozen=True, kw_only=True)
class Output:
  """What the model gave for one row: tokens without their end, and the strategy's score.

  Of a prediction head, the number of the most probable class in place of tokens, and its log p.
  """

  tokens: Sequence[int]
  score: float


def score(
  task: EvalTask,
  plan: TaskResult,
  *,
  outputs: Mapping[tuple[int, int], Output],
  decode: Callable[[Sequence[int]], str],
  setting: Setting,
) -> tuple[TaskResult, list[Prediction]]:
  """The finished result and its predictions, from the raw outputs of one task.

  Args:
    plan: what `task.plan` gave: the result without scores.
    outputs: by (example, option); option is 0 where text was generated, `TARGET` for the example's own.
    decode: token ids -> text.
  """
  special = setting.special
  raw, log_probabilities = _answers(task, outputs, decode)
  ended = [postprocess.until(text, task.stop) for text in raw]
  # What is chosen among options, or told by a head, is an answer already.
  predictions = (
    [task.predicted(index, text) for index, text in enumerate(ended)]
    if task.way == "generated" and task.reads_answers
    else raw
  )
  targets = [_references(task, i, decode, special) for i in range(len(raw))]
  # Scores, and their errors where a metric shows what it sums over the examples.
  scores: dict[str, float] = {}
  deviations: dict[str, float] = {}
  intervals: dict[str, tuple[float, float]] = {}
  each: dict[str, list[float]] = {}
  for metric in task.metric_fns:
    if model_outputs.reads(metric):
      found = _numbers(metric(targets, predictions, _of_model(task, outputs)))
      _add(task, scores, found)
    else:
      _apply(metric, targets, predictions, scores, deviations, intervals, each)
  headline = task.metric or _headline(task, scores)
  if headline not in scores:
    raise errors.ConfigError(
      f"task '{task.label}' has no score '{headline}'; its metrics give {', '.join(scores)}. Set METRIC."
    )
  if setting.format_metric and task.reads_answers:
    # Of what was written, not of the prediction: postprocessing may have mended its format.
    answers = [postprocess.between_sentinels(text) for text in ended]
    _apply(setting.format_metric, targets, answers, scores, deviations, intervals, {})
  result = dataclasses.replace(
    plan, metric=headline, scores=scores, standard_errors=deviations, intervals=intervals
  )
  single: Sequence[float | None] = each.get(headline) or [None] * len(raw)
  return result, [
    Prediction(
      task=task.label,
      shots=task.shots,
      index=i,
      input=decode(_text_tokens(task.examples.inputs[i], special)),
      targets=_storable(targets[i]),
      prediction=_text(predictions[i]),
      raw=raw[i],
      score=single[i],
      log_probability=log_probabilities[i],
    )
    for i in range(len(raw))
  ]


def _answers(
  task: EvalTask,
  outputs: Mapping[tuple[int, int], Output],
  decode: Callable[[Sequence[int]], str],
) -> tuple[list[str], list[float]]:
  """Raw text and log-probability of every example; with options or classes, of the most probable one."""
  texts, scores = [], []
  for index in range(len(task.examples.inputs)):
    if not task.reads_answers:
      texts.append("")
      scores.append(outputs[index, TARGET].score)
    elif names := list(task.options_of(index)):
      probabilities = [outputs[index, number].score for number in range(len(names))]
      best = int(np.argmax(probabilities))  # the first of equal ones
      texts.append(names[best])
      scores.append(probabilities[best])
    else:
      output = outputs[index, 0]
      told = task.classes
      texts.append(told.answers[output.tokens[0]] if told else decode(output.tokens))
      scores.append(output.score)
  return texts, scores


def _of_model(task: EvalTask, outputs: Mapping[tuple[int, int], Output]) -> ModelOutputs:
  """What metrics are given that look at more than texts."""
  count = range(len(task.examples.inputs))
  nothing = Output(tokens=[], score=0.0)
  # Where no metric reads answers there are none, and only likelihoods.
  given = [outputs.get((index, 0), nothing) for index in count]
  return ModelOutputs(
    records=[task.record(index) for index in count],
    tokens=[output.tokens for output in given],
    scores=[output.score for output in given],
    likelihoods=[outputs[index, TARGET].score for index in count] if task.reads_likelihoods else (),
  )


def _add(task: EvalTask, scores: dict[str, float], found: Mapping[str, float]) -> None:
  """Adds scores, none of which another metric gave."""
  if twice := sorted(set(found) & set(scores)):
    raise errors.ConfigError(
      f"task '{task.label}' has two metrics that give '{twice[0]}'; give each its own name."
    )
  scores.update(found)


def _text_tokens(tokens: Iterable[int], special: TokenIds) -> list[int]:
  return [int(token) for token in tokens if token not in (special.pad, *special.ends)]


def _references(
  task: EvalTask, index: int, decode: Callable[[Sequence[int]], str], special: TokenIds
) -> Any:
  if task.references:
    return task.references(task.record(index))
  # A record has all accepted answers, the target only the one that a model is trained to give.
  answers = task.examples.records[index].get("answers")
  if answers is not None and len(answers):
    texts = [answers] if isinstance(answers, (str, bytes)) else list(answers)
    return [text.decode() if isinstance(text, bytes) else str(text) for text in texts]
  return postprocess.between_sentinels(decode(_text_tokens(task.examples.targets[index], special)))


def _apply(
  metric: Any,
  targets: Sequence[Any],
  predictions: Sequence[str],
  scores: dict[str, float],
  deviations: dict[str, float],
  intervals: dict[str, tuple[float, float]],
  each: dict[str, list[float]],
) -> None:
  """Adds a metric's scores, errors, intervals and per-example scores to the four mappings."""
  # A seqio metric gives scores only: nothing could be resampled.
  if not isinstance(metric, metric_lib.Metric):
    scores.update(_numbers(metric(targets, predictions)))
    return
  statistics = metric.statistics(targets, predictions)
  for name, estimate in confidence.estimate(metric, statistics).items():
    scores[name] = estimate.value
    deviations[name] = estimate.standard_error
    if estimate.interval is not None:
      intervals[name] = estimate.interval
  # A summary of one row is that example's own score.
  for row in statistics:
    for name, value in metric.summarize(row).items():
      each.setdefault(name, []).append(value)


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
  """What is a number of a metric's scores, also as seqio's Scalar; not texts and pictures."""
  values = {name: getattr(value, "value", value) for name, value in found.items()}
  return {
    name: float(value)
    for name, value in values.items()
    if isinstance(value, int | float | np.number) or getattr(value, "ndim", None) == 0
  }


def _text(prediction: Any) -> str:
  return prediction if isinstance(prediction, str) else str(_storable(prediction))


def _storable(value: Any) -> Any:
  """A prediction or target of any kind as JSON can hold it."""
  # TensorFlow's strings are bytes.
  if isinstance(value, bytes):
    return value.decode("utf-8", errors="replace")
  if isinstance(value, np.ndarray | np.generic):
    return _storable(value.tolist())
  if isinstance(value, Mapping):
    return {str(key): _storable(each) for key, each in value.items()}
  if isinstance(value, list | tuple | set):
    return [_storable(each) for each in value]
  return value if isinstance(value, str | int | float | None) else str(value)


def _headline(task: EvalTask, scores: Mapping[str, float]) -> str:
  if not scores:
    raise errors.ConfigError(
      f"Task '{task.label}' has no metric that gives a score; set its metric_fns."
    )
  return "rouge2" if "rouge2" in scores else next(iter(scores))
