"""Probes of a network: heads, and their accuracy beside generation's.

Every different answer of a task's training split is a class.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from flax import nnx

from promot_jax import identity
from promot_jax.data.examples import Examples
from promot_jax.evaluation import whole_files
from promot_jax.evaluation.records import Prediction, TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.identity import Identity
from promot_jax.metrics import confidence, postprocess
from promot_jax.metrics.accuracy import Accuracy
from promot_jax.probing import probe as probe_lib
from promot_jax.probing.features import FeatureStore
from promot_jax.probing.probe import Probe
from promot_jax.training.choice import StageResult

_GENERATION = "generation_"
Train = Callable[..., StageResult]
"""`train(stage, model, batches=, validate=, made_from=)`: a stage of the experiment, or what is left of it."""


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
  classes: Callable[[Examples], Sequence[str]],
  train: Train,
  rows: Callable[[int], int],
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
    classes: of training examples the answers that are told apart.
    train: trains a stage in the experiment's directory.
    rows: of so many examples, the rows of a batch that the devices can share.
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
    # A probe is on the tuned tasks with the method as trained; other results are taken over as
    # they are.
    own = tuned.get((result.task, result.shots)) if result.method != "detached" else None
    # Another probe is another result.
    mark = repr(probe) if own is not None else ""
    wanted = dataclasses.replace(
      result, fingerprint=whole_files.fingerprint([result.fingerprint, mark])
    )
    found = kept.find(f"{name}-probe", wanted)
    if found is None:
      found, predictions = wanted, list(kept.predictions(name, result))
      if own is not None:
        splits = own()
        answers = classes(splits.train)
        found, predictions = measure(
          probe,
          model,
          splits,
          features,
          classes=answers,
          train=train,
          rows=rows,
          generation=wanted,
          seed=seed,
        )
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
  classes: Sequence[str],
  train: Train,
  rows: Callable[[int], int],
  generation: TaskResult,
  seed: int,
) -> tuple[TaskResult, list[Prediction]]:
  """The probe's result on the report split, with generation's score beside it.

  Args:
    model: gives the network; only called if features are not on disk.
    classes, train, rows: as for `probed`.
    generation: result of the same network on the same examples, by generation.
    seed: of the head.

  Returns:
    A result whose headline is the probe's accuracy and which holds the former headline as
    'generation_NAME'; and one prediction an example.
  """
  number = {answer: index for index, answer in enumerate(classes)}
  found, labels = {}, {}
  for name in ("train", "select", "report"):
    examples = getattr(splits, name)
    found[name] = store.features(model, examples, probe.layer)[probe.pooling]
    labels[name] = np.asarray(
      [number.get(answer_of(examples, i), -1) for i in range(len(examples))], np.int32
    )
  # By the training features alone: the other splits are to be unseen.
  standard = probe_lib.Standard.of(found["train"])
  features = {name: standard(values) for name, values in found.items()}
  count = rows(len(labels["train"]))
  batch = probe_lib.batch_of(features["train"], labels["train"], rows=count)
  parts = {
    # By the features that the head is trained on, whatever made them.
    f"{part} data": identity.part(
      [hashlib.sha256(features[name].tobytes()).hexdigest(), labels[name].tolist()],
      about=f"{len(labels[name])} features of {getattr(splits, name).name}",
    )
    for part, name in (("training", "train"), ("validation", "select"))
  }
  made_from = Identity(parts={**parts, "code": identity.of_code()})
  # Every probe of a network is a stage of its own, so that another one does not disturb it.
  own = whole_files.fingerprint([repr(probe), seed, made_from.parts["training data"].digest])[:8]
  head = probe_lib.FeatureHead(
    features["train"].shape[1], len(classes), hidden=probe.hidden, seed=seed
  )

  def validate(model: nnx.Module) -> dict[str, float]:
    # An answer that no training example has is -1 here, and never right.
    right = probe_lib.predict(model, features["select"]) == labels["select"]
    return {"accuracy": 100.0 * float(np.mean(right))}

  trained = train(
    probe_lib.stage(probe, f"probe-{generation.task}-{own}", count),
    probe_lib.Classifier(head),
    batches=lambda step: batch,
    validate=validate,
    made_from=made_from,
  )
  predicted = [classes[index] for index in probe_lib.predict(trained.model, features["report"])]
  return _result(probe, trained, splits.report, predicted, generation)


def _result(
  probe: Probe,
  trained: StageResult,
  examples: Examples,
  predicted: list[str],
  generation: TaskResult,
) -> tuple[TaskResult, list[Prediction]]:
  targets = [answer_of(examples, i) for i in range(len(examples))]
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
      "probe_step": trained.step,
      "probe_selection_accuracy": next(
        each["score"] for each in trained.history if each["step"] == trained.step
      ),
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


def answer_of(examples: Examples, index: int) -> str:
  """What an example is to be answered with, without what stands around answers."""
  return postprocess.between_sentinels(str(examples.records[index]["targets"]))
