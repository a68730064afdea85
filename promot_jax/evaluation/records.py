"""What is kept of an evaluated model: how it was made, its scores, its answers.

Values only; `results` is where they lie on disk.  Imports neither JAX nor TensorFlow.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRecord:
  """What one stage of an evaluated model trained.

  Args:
    trained: number of trained parameters; backbone: of all that the pretrained model has.
    step_seconds: median time of an update, compilation left out; None where it is not known.
  """

  name: str
  trained: int
  backbone: int
  step_seconds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
  """How an evaluated model was made: the part of a report that scores cannot tell.

  Args:
    method: as in the quoted tables: pretrained, fine_tuning, prompt_tuning, promot, joint,
      random_prompt, multitask_fine_tuning, multitask_promot, each also with `_1shot`.
    trained_on: task name, several joined by `+`, or `none` for a pretrained model.
    selected: the checkpoint whose scores are reported; `why` says how it was chosen.
    backbone: name of the pretrained model; `parameters` counts its weights.
    data: source of the examples: `micro`, `tfds`; or, where a data set is not the published one,
      which ones are not.
    data_sets: task -> name, version and size of what was read; own_tasks: those of them that are not
      the published ones, so that published figures do not stand beside theirs.
    unseen: the tasks of Norm. Avg; None of records of earlier versions: the eight of the paper.
    printed: what the method is called in a report; empty: its name there, or the method's own.
    column: its place among the columns of a report; None: after those that have one.
    backbone_trained: whether anything was trained that the pretrained model has; None: of records of
      earlier versions.
    variant: what else tells this run from others of its method, for example `learning rate 0.01`.
    training_examples, subsample: how many examples of the training split were trained on, and which choice
      of so many; None where it was all of them.
    kind, positions: class of the method, and its length where it has one (vectors, positions of a prefix).
    row, point: the row of a comparison of which this run is one point, and the settings that say which; empty of
      a row that is there once.
    validation: score by which the last stage chose its checkpoint, and whether higher is better of it; None
      where nothing was validated, and of earlier versions.
    drift: state of the method ('on', 'off', 'none') -> how far the model is from the pretrained one: its
      'divergence' in nats and the 'perplexity' of general text, as far as they were measured.
    settings: plain values worth reading beside the scores (steps, rates, batch size ...).
    templates: data set -> its tasks, one a template; the data set's score is their median.
    measured: split and way of each result of the run's own plan (`ways.own`); empty of records of
      earlier versions.
    stages: in the order of training; none of a pretrained model.
    environment: versions and device.
  """

  method: str
  trained_on: str = "none"
  seed: int = 0
  selected: str = ""
  why: str = ""
  backbone: str = ""
  parameters: int = 0
  data: str = ""
  data_sets: Mapping[str, str] = dataclasses.field(default_factory=dict)
  own_tasks: Sequence[str] = ()
  unseen: Sequence[str] | None = None
  printed: str = ""
  column: int | None = None
  backbone_trained: bool | None = None
  variant: str = ""
  training_examples: int | None = None
  subsample: int | None = None
  kind: str = ""
  positions: int | None = None
  row: str = ""
  point: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  validation: float | None = None
  higher_is_better: bool = True
  drift: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  templates: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
  measured: Mapping[str, str] = dataclasses.field(default_factory=dict)
  stages: Sequence[StageRecord] = ()
  environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  command: str = ""

  def __post_init__(self):
    stages = tuple(StageRecord(**s) if isinstance(s, Mapping) else s for s in self.stages)
    object.__setattr__(self, "own_tasks", tuple(self.own_tasks))
    object.__setattr__(self, "stages", stages)  # a file holds them as JSON objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
  """Scores of one checkpoint on one task at one number of shots with the method on or off.

  Args:
    method: `attached`, `detached`, or `none` for a model that never had one.
    bank_row: which row of the method's bank was used, where it has one for each task.
    metric: name of the headline score, the one that enters Norm. Avg.
    scores, standard_errors: by metric name, each on the metric's own scale; errors are over the test
      examples.
    intervals: 95 % limits over the test examples, by metric name, where there are any
      (`metrics.confidence.Estimate`).
    count: number of examples.
    settings: decoding, lengths, metric settings; part of the fingerprint.
    notes: facts that are not settings, such as how many inputs were cut, and how batches were put together.
    limit: how many of the first examples of the split these are; None: all of them.
    made_from: identity of the data, of the start of the weights and of the code
      (`promot_jax.identity`); empty of results of earlier versions.
    predictions_sha256: of the file with the predictions; empty of results of earlier versions.
    median_of: number of results whose median this is (`medians`); 0: it was measured.
  """

  task: str
  shots: int
  method: str
  metric: str
  scores: Mapping[str, float]
  count: int
  split: str = ""
  bank_row: int = 0
  standard_errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
  intervals: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fingerprint: str = ""
  checkpoint: str = ""
  limit: int | None = None
  made_from: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  predictions_sha256: str = ""
  median_of: int = 0

  @property
  def score(self) -> float:
    """The headline score, on its metric's scale."""
    return self.scores[self.metric]

  @property
  def standard_error(self) -> float | None:
    """Standard error of the headline score over examples, if it was computed."""
    return self.standard_errors.get(self.metric)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
  """One evaluated example.

  Args:
    input: decoded model input; targets: the accepted answers; raw: the decoded output;
      prediction: what post-processing left of it.
    score: the headline metric of this example alone, on its scale; None if it has no such score.
    log_probability: the decoding strategy's score of the output (or of the chosen option).
  """

  task: str
  shots: int
  index: int
  input: str
  targets: Any
  prediction: str
  raw: str
  score: float | None
  log_probability: float
