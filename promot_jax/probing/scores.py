"""Probes of a network: heads, and their accuracy beside generation's.

Labels are the answers of the seqio task itself: every different target of the training split is a
class.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import nnx

from promot_jax.data.examples import Examples
from promot_jax.errors import ConfigError
from promot_jax.evaluation import whole_files
from promot_jax.evaluation.records import Prediction, TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.metrics import confidence
from promot_jax.metrics.accuracy import Accuracy
from promot_jax.probing import probe as probe_lib
from promot_jax.probing.features import FeatureStore
from promot_jax.probing.probe import Probe

_GENERATION = "generation_"
MOST_CLASSES = 100
"""A task with more different answers is no classification."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
  """Examples of one task: what heads are trained on, chosen on, and reported on."""

  train: Examples
  select: Examples
  report: Examples


def probed(
  probe: Probe,
  results: Sequence[TaskResult],
  *,
  tuned: Mapping[tuple[str, int], Callable[[], Splits]],
  seed: int,
  name: str,
  model: Callable[[], nnx.Module],
  features: FeatureStore,
  kept: ResultStore,
) -> tuple[str, list[TaskResult]]:
  """The results of a checkpoint with the probe's in place of the tuned tasks' ones.

  They are stored as those of a checkpoint of their own; what is there is not run again.

  Args:
    results: of the final model by generation.
    tuned: (task, shots) of each tuned task -> reads its examples.
    seed: of the head.
    name: of the results' checkpoint.
    model: gives the final model; only called if features are not on disk.
    features: of that model.
    kept: where the results lie and the probe's are added.

  Returns:
    (name of the new checkpoint, its results).
  """
  done = []
  for result in results:
    own = tuned.get((result.task, result.shots)) if result.method != "detached" else None
    mark = repr(probe) if own is not None else ""
    wanted = dataclasses.replace(
      result, fingerprint=whole_files.fingerprint([result.fingerprint, mark])
    )
    found = kept.find(f"{name}-probe", wanted)
    if found is None:
      found, predictions = wanted, list(kept.predictions(name, result))
      if own is not None:
        found, predictions = measure(probe, model, own(), features, generation=wanted, seed=seed)
        features.report(f"probe     {found.task}: {found.scores}")
      kept.write(f"{name}-probe", found, predictions)
    done.append(found)
  return f"{name}-probe", done


def measure(
  probe: Probe,
  model: Callable[[], nnx.Module],
  splits: Splits,
  store: FeatureStore,
  *,
  generation: TaskResult,
  seed: int,
) -> tuple[TaskResult, list[Prediction]]:
  """The probe's result on the report split, with generation's score beside it.

  Args:
    model: gives the network; only called if features are not on disk.
    generation: result of the same network on the same examples, by generation.
    seed: of the head.

  Returns:
    A result whose headline is the probe's accuracy and which holds the former headline as
    'generation_NAME'; and one prediction an example.

  Raises:
    ConfigError: the task is no classification.
  """
  classes = sorted({_answer(splits.train, i) for i in range(len(splits.train))})
  if len(classes) > MOST_CLASSES:
    raise ConfigError(
      f"Task '{splits.train.name}' has {len(classes)} different answers in {len(splits.train)} training"
      f" examples; a probe classifies, so choose a task with at most {MOST_CLASSES}."
    )
  number = {answer: index for index, answer in enumerate(classes)}
  found, labels = {}, {}
  for name in ("train", "select", "report"):
    examples = getattr(splits, name)
    found[name] = store.features(model, examples, probe.layer)[probe.pooling]
    labels[name] = np.asarray(
      [number.get(_answer(examples, i), -1) for i in range(len(examples))], np.int32
    )
  head = probe_lib.fit(
    probe,
    (found["train"], labels["train"]),
    (found["select"], labels["select"]),
    classes=len(classes),
    seed=seed,
  )
  predicted = [classes[index] for index in head.predict(found["report"])]
  return _result(probe, head, splits.report, predicted, generation)


def _result(
  probe: Probe,
  head: probe_lib.Head,
  examples: Examples,
  predicted: list[str],
  generation: TaskResult,
) -> tuple[TaskResult, list[Prediction]]:
  targets = [_answer(examples, i) for i in range(len(examples))]
  metric = Accuracy()
  estimates = confidence.estimate(metric, metric.statistics(targets, predicted))
  result = dataclasses.replace(
    generation,
    metric="accuracy",
    scores={
      "accuracy": estimates["accuracy"].value,
      f"{_GENERATION}{generation.metric}": generation.score,
    },
    standard_errors={
      "accuracy": estimates["accuracy"].standard_error,
      **{f"{_GENERATION}{name}": error for name, error in generation.standard_errors.items()},
    },
    intervals={
      "accuracy": confidence.wilson(estimates["accuracy"].value, len(targets)),
      **{f"{_GENERATION}{name}": limits for name, limits in generation.intervals.items()},
    },
    settings={**generation.settings, "probe": repr(probe)},
    notes={
      **generation.notes,
      "probe_step": head.step,
      "probe_selection_accuracy": 100 * head.accuracy,
    },
  )
  predictions = [
    Prediction(
      task=generation.task,
      shots=generation.shots,
      index=index,
      input=str(examples.records[index].get("inputs", "")),
      targets=target,
      prediction=answer,
      raw=answer,
      score=100.0 * (answer == target),
      log_probability=0.0,
    )
    for index, (target, answer) in enumerate(zip(targets, predicted))
  ]
  return result, predictions


def _answer(examples: Examples, index: int) -> str:
  return str(examples.records[index]["targets"])
