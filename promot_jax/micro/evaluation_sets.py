"""Few-shot prompts of the micro tasks as plain text, for measuring a model without TensorFlow."""

import dataclasses
import functools

from promot_jax.data import few_shot
from promot_jax.data.task import Task
from promot_jax.micro import world


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """Prompts of one task.

  Attributes:
    task: whose they are.
    inputs: the texts, demonstrations before the query.
    targets: for each input, every answer that counts as right, without sentinels.
  """

  task: Task
  inputs: tuple[str, ...]
  targets: tuple[tuple[str, ...], ...]


def evaluation_set(
  task: Task, split: str = "test", *, shots: int = 1, limit: int | None = None, seed: int = 0
) -> EvaluationSet:
  """The first `limit` records of a split, each after `shots` solved records of train.

  The demonstrations are those that the seqio tasks choose for the same query and seed.
  """
  queries = [task.render(record) for record in world.records(world.twin_of(task), split)[:limit]]
  prompts = [query.input for query in queries]
  if shots:
    pool = _demonstrations(task)
    prompts = [pool.prompt(query.input, shots=shots, seed=seed) for query in queries]
  return EvaluationSet(task, tuple(prompts), tuple(query.answers for query in queries))


# The pool is rendered once for all splits.
@functools.cache
def _demonstrations(task: Task) -> few_shot.Demonstrations:
  rendered = (task.render(record) for record in world.records(world.twin_of(task), "train"))
  return few_shot.Demonstrations((each.input, each.target) for each in rendered)
