"""Probes of an experiment's network: features on disk, heads, and their accuracy beside generation's.

Labels are the answers of the seqio task itself: every different target of the training split is a
class.  Features lie in MODEL_DIR/features, named by what decides them, and are computed once.
"""

import dataclasses
import hashlib
import io
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import nnx

from promot_jax.data import batches
from promot_jax.data.examples import Examples
from promot_jax.errors import ConfigError
from promot_jax.evaluation import whole_files
from promot_jax.evaluation.results import Prediction, ResultStore, TaskResult
from promot_jax.experiments.data import Reader
from promot_jax.experiments.experiment import Experiment
from promot_jax.methods import probe as probe_lib
from promot_jax.methods.probe import Probe
from promot_jax.metrics import confidence
from promot_jax.metrics.accuracy import Accuracy
from promot_jax.token_ids import TokenIds
from tasks import catalog

_GENERATION = "generation_"
MOST_CLASSES = 100
"""A task with more different answers is no classification."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
  """Examples of one task: what heads are trained on, chosen on, and reported on."""

  train: Examples
  select: Examples
  report: Examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureStore:
  """Features of one network.

  folder: where they are kept.
  identity: of the network, its method and its weights.
  batch_size: examples at once.
  place, fetch: batch -> devices, array -> host.
  report: called with a line about what was computed.
  """

  folder: pathlib.Path
  identity: str
  batch_size: int
  place: Callable[[Mapping[str, Any]], Any]
  fetch: Callable[[Any], np.ndarray]
  report: Callable[[str], None]

  def features(
    self, model: Callable[[], nnx.Module], examples: Examples, layer: int | None
  ) -> dict[str, np.ndarray]:
    """[N D] float32 by pooling, from disk if they are there."""
    path = self.folder / f"{self._name(examples, layer)}.npz"
    try:
      with np.load(path, allow_pickle=False) as stored:
        return {pooling: stored[pooling] for pooling in probe_lib.POOLINGS}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
      pass  # absent or cut off: computed again
    found = self._computed(model(), examples, layer)
    self.report(f"features  {examples.name} {examples.split}: {len(examples)} computed, {path}")
    _write(path, found)
    return found

  def _computed(
    self, model: nnx.Module, examples: Examples, layer: int | None
  ) -> dict[str, np.ndarray]:
    compute = probe_lib.feature_function(model, layer)
    special = TokenIds.of(model.config)
    rows: dict[str, list] = {}
    for batch, numbers in batches.EvalBatches(
      examples, batch_size=self.batch_size, special=special
    ):
      given = {name: batch[name] for name in batches.READ}
      for pooling, array in compute(self.place(given)).items():
        values = self.fetch(array)
        target = rows.setdefault(pooling, [None] * len(examples))
        for number, value in zip(numbers, values):
          if number >= 0:  # -1 fills the last batch
            target[number] = value
    return {pooling: np.stack(values) for pooling, values in rows.items()}

  def _name(self, examples: Examples, layer: int | None) -> str:
    digest = hashlib.sha256(f"{self.identity} {layer}".encode())
    digest.update(np.asarray(examples.prompt_ids, np.int32).tobytes())
    for tokens in examples.inputs:
      array = np.ascontiguousarray(tokens, np.int32)
      digest.update(len(array).to_bytes(4, "little") + array.tobytes())
    where = "all" if layer is None else f"layer{layer}"
    return f"{examples.name}.{examples.split}.{where}.{digest.hexdigest()[:16]}"


def probed(
  experiment: Experiment,
  results: Sequence[TaskResult],
  *,
  name: str,
  model: Callable[[], nnx.Module],
  features: FeatureStore,
  kept: ResultStore,
  reader: Reader,
) -> tuple[str, list[TaskResult]]:
  """The results of a checkpoint with the probe's in place of the tuned tasks' ones.

  They are stored as those of a checkpoint of their own; what is there is not run again.

  Args:
    experiment: one with a probe.
    results: of the final model by generation.
    name: of its checkpoint.
    model: gives the final model; only called if features are not on disk.
    features: of that model.
    kept: the experiment's results, to which the probe's are added.
    reader: of examples.

  Returns:
    (name of the new checkpoint, its results).
  """
  probe = experiment.probe
  assert probe is not None
  tuned = {catalog.split_shots(task): (row, task) for row, task in enumerate(experiment.tasks)}
  done = []
  for result in results:
    own = tuned.get((result.task, result.shots)) if result.prompt != "detached" else None
    mark = repr(probe) if own is not None else ""
    wanted = dataclasses.replace(
      result, fingerprint=whole_files.fingerprint([result.fingerprint, mark])
    )
    found = kept.find(f"{name}-probe", wanted)
    if found is None:
      found, predictions = wanted, list(kept.predictions(name, result))
      if own is not None:
        splits = _splits(experiment, reader, *own)
        found, predictions = measure(
          probe, model, splits, features, generation=wanted, seed=experiment.seed
        )
        features.report(f"probe     {found.task}: {found.scores}")
      kept.write(f"{name}-probe", found, predictions)
    done.append(found)
  return f"{name}-probe", done


def _splits(experiment: Experiment, reader: Reader, row: int, task: str) -> Splits:
  names, lengths = experiment.splits_of(task), experiment.feature_lengths

  def read(split: str, limit: int | None) -> Examples:
    return reader.examples(experiment, task, split, lengths, limit).with_prompt_ids(row)

  return Splits(
    train=read(names.train, experiment.train_limit),
    select=read(names.select, experiment.validation_limit),
    report=read(names.report, experiment.evaluation.limit),
  )


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


def _write(path: pathlib.Path, arrays: Mapping[str, Any]) -> None:
  stream = io.BytesIO()
  np.savez(stream, **arrays)
  whole_files.write_bytes(path, stream.getvalue())
