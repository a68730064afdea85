"""Few-shot prompts of the micro tasks as plain text, for measuring a model without TensorFlow."""

import dataclasses

from promot_jax.data import templates
from promot_jax.micro import world
from promot_jax.micro.dice import Dice

# The eight tasks of which the paper takes the mean when RTE is the fine-tuned task.
UNSEEN_TASKS = (
  "cb",
  "wic",
  "trivia_qa",
  "web_questions",
  "wmt16_en_de",
  "wmt16_en_ro",
  "xsum",
  "wiki_lingua",
)


@dataclasses.dataclass(frozen=True)
class EvaluationSet:
  """Prompts of one task.

  Attributes:
    task: name of the task without its shots.
    inputs: the texts, demonstrations before the query.
    targets: for each input, every answer that counts as right, without sentinels.
  """

  task: str
  inputs: tuple[str, ...]
  targets: tuple[tuple[str, ...], ...]


def evaluation_set(
  task: str, split: str = "test", *, shots: int = 1, limit: int | None = None, seed: int = 0
) -> EvaluationSet:
  """The first `limit` records of a split, each after `shots` random solved records of train."""
  queries = world.records(task, split)[:limit]
  shown = world.records(task, "train")
  inputs, targets = [], []
  for number, record in enumerate(queries):
    dice = Dice("demonstrations", task, split, seed, number)
    query = templates.render(task, record)
    solved = []
    while len(solved) < shots:
      example = templates.render(task, dice.pick(shown))
      if example.input != query.input and (example.input, example.target) not in solved:
        solved.append((example.input, example.target))
    inputs.append(templates.join_shots(solved, query.input))
    targets.append(query.answers)
  return EvaluationSet(task, tuple(inputs), tuple(targets))


def eval_sets(
  split: str = "test",
  shots: int = 1,
  limit: int | None = 96,
  seed: int = 0,
  tasks: tuple[str, ...] = world.TASKS,
) -> list[EvaluationSet]:
  """The evaluation sets of several tasks; all twelve by default."""
  return [
    evaluation_set(task, split, shots=shots, limit=limit, seed=seed) for task in tasks
  ]
