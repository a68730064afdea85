"""Which weights are combined, and how, by validation: a greedy soup, and a sweep between two networks.

Nothing is chosen on what is reported: scores are those of the split that chose the members' checkpoints,
measured as their stage did.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from promot_jax import partitioning
from promot_jax.checkpoints import restore
from promot_jax.errors import ConfigError
from promot_jax.experiments import data, progress, validation
from promot_jax.experiments.model_directory import ModelDirectory
from promot_jax.networks.operations import Mean, TaskArithmetic, numbers
from promot_jax.training import choice

RECIPE_VALUES = ("GreedySoup", "Sweep")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
  """What was tried.

  members: numbers of the networks, in the order in which they were given.
  score: on validation.
  kept: whether the choice went on with it.
  """

  operation: str
  members: tuple[int, ...]
  score: float
  kept: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chosen:
  """An operation, the numbers of the networks that it is done with, and all that was tried."""

  operation: Any
  members: tuple[int, ...]
  trials: tuple[Trial, ...]


Measure = Callable[[Any, Sequence[int]], float]
"""(operation, numbers of networks) -> score on validation, larger is better."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreedySoup:
  """The mean of networks that were found one after the other (Wortsman et al., 2022, Recipe 1).

  In the order of their own scores each is added if the mean does not get worse by it.
  """

  based: ClassVar[bool] = False

  def require(self, members: int) -> None:
    """Raises ConfigError: there is nothing to choose among."""
    if members < 2:
      raise ConfigError("A greedy soup chooses among networks; name at least two.")

  def __call__(self, own: Sequence[float], measure: Measure) -> Chosen:
    """The soup.

    Args:
      own: the score of each network, as its run recorded it.
    """
    # Of equal scores the one that was named first comes first.
    order = sorted(range(len(own)), key=lambda number: -own[number])
    soup: tuple[int, ...] = (order[0],)
    best = own[order[0]]
    trials = [Trial(operation=repr(Mean()), members=soup, score=best, kept=True)]
    for number in order[1:]:
      # In the order of naming, so that the sum does not depend on the scores.
      tried = tuple(sorted((*soup, number)))
      score = measure(Mean(), tried)
      kept = score >= best
      trials.append(Trial(operation=repr(Mean()), members=tried, score=score, kept=kept))
      if kept:
        soup, best = tried, score
    return Chosen(operation=Mean(), members=soup, trials=tuple(trials))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
  """WiSE-FT with the weight that is best on validation; of equal ones the smallest.

  weights: which are tried; 0 is the base, 1 the tuned network.
  """

  based: ClassVar[bool] = True

  weights: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)

  def __post_init__(self):
    weights = numbers(self.weights, what="Sweep.weights", least=-10, most=10)
    object.__setattr__(self, "weights", tuple(sorted(set(weights))))

  def require(self, members: int) -> None:
    """Raises ConfigError: there is no line from the base to several networks."""
    if members != 1:
      raise ConfigError(f"A sweep is between the base and one network, and {members} were named.")

  def __call__(self, own: Sequence[float], measure: Measure) -> Chosen:
    """The best of the line; as of `GreedySoup`."""
    found = {weight: measure(TaskArithmetic(scales=weight), (0,)) for weight in self.weights}
    best = max(found, key=lambda weight: (found[weight], -weight))
    trials = tuple(
      Trial(
        operation=repr(TaskArithmetic(scales=weight)),
        members=(0,),
        score=score,
        kept=weight == best,
      )
      for weight, score in found.items()
    )
    return Chosen(operation=TaskArithmetic(scales=best), members=(0,), trials=trials)


class Validation:
  """Scores of weights on the split that chose the checkpoint of a run's last stage."""

  def __init__(self, directory: ModelDirectory):
    experiment = directory.experiment
    self._directory = directory
    self._stage = experiment.stages[-1]
    self._tasks = data.validation_tasks(experiment, self._stage.name, directory.session.reader)

  def score(self, leaves: Mapping[str, Any]) -> float:
    """Of a backbone with these arrays, which are read one after the other; larger is better."""
    directory, stage = self._directory, self._stage
    experiment = directory.experiment
    model = experiment.start.abstract()
    if directory.mesh is not None:
      model = partitioning.abstract(model, directory.mesh)
    metrics = validation.measure(
      experiment,
      stage,
      self._tasks,
      restore.restore_into(model, leaves),
      teacher=directory.session.teacher(experiment, stage.name),
      place=directory.place,
      progress=progress.reporter(
        directory.events, "validation", stop=directory.session.stop_if_asked
      ),
    )
    return sign(directory) * choice.score(stage, metrics)


def sign(directory: ModelDirectory) -> float:
  """1 where larger scores of the run's last stage are better, or -1."""
  return 1.0 if directory.experiment.stages[-1].optimum == "max" else -1.0


def recorded(directory: ModelDirectory) -> float:
  """The validation score that a run's last stage recorded for the step that it chose; larger is better.

  Raises:
    ConfigError: the stage is not complete, or did not validate that step.
  """
  store = directory.store(directory.experiment.stages[-1])
  step = choice.chosen_step(store)
  done = choice.marker(store) or {"history": []}
  score = choice.score_at(done["history"], step)
  if score is not None:
    return sign(directory) * score
  raise ConfigError(
    f"{directory.folder} recorded no validation of step {step}, which it chose; train it with an"
    " EVAL_PERIOD that reaches the step."
  )


def require_comparable(directories: Sequence[ModelDirectory]) -> None:
  """Whether scores of runs can be compared.

  Raises:
    ConfigError: a run trains nothing, or two validate on different things.
  """
  asked = []
  for directory in directories:
    experiment = directory.experiment
    if not experiment.stages:
      raise ConfigError(f"{directory.folder} trains nothing, so it has no validation to choose by.")
    asked.append(
      {
        "task": ", ".join(experiment.tasks),
        "data": experiment.source,
        "validation examples": str(experiment.validation_limit),
        "choice": choice.described(experiment.stages[-1]),
      }
    )
  for directory, own in zip(directories, asked, strict=True):
    for name, value in own.items():
      if value != asked[0][name]:
        raise ConfigError(
          f"{directories[0].folder} validates with {name} {asked[0][name]}, and {directory.folder} with"
          f" {value}; a choice needs scores of one kind."
        )
