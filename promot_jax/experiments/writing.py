"""How examples are written for a model: in the form that it was tuned in, or as plain text.

A decoder-only model that was tuned on a task was taught where its answer begins (after the separator)
and that it ends with eos.  The pretrained model was taught neither, and what tuning should have left
alone is measured as few-shot abilities of a language model are: input and answer are one text, with
the blank that the template puts between them in its demonstrations, and an answer ends with its line.

| evaluated                                            | written                             |
|------------------------------------------------------|-------------------------------------|
| a tuned task, method attached or backbone tuned      | as it was tuned, and validated      |
| a tuned task, method detached; the pretrained model  | plain text                          |
| every other task, method attached or not             | plain text, or as the plan says     |

A plan says otherwise (`EvaluationPlan.unseen_written`) where they are the tuned task on other data, such as out
of distribution: then they are written as that is in the first two lines.  Encoder-decoders have one form
only, in which they were pretrained and are tuned.
"""

import dataclasses
from typing import Any

from promot_jax.data import joining, vocabularies
from promot_jax.data.vocabularies import Vocabulary
from promot_jax.errors import ConfigError
from promot_jax.evaluation.task import EvalTask
from promot_jax.experiments.experiment import Experiment
from tasks import catalog


def written(experiment: Experiment, *, tuned: bool) -> Experiment:
  """The same experiment with the vocabulary that writes texts in its tuned form or as plain text."""
  if tuned:
    return experiment
  plain = vocabularies.as_one_text(experiment.vocabulary)
  return dataclasses.replace(experiment, network=experiment.network.spelled(plain))


def stop(vocabulary: Vocabulary, *, tuned: bool) -> tuple[str, ...]:
  """Texts at which an output ends, besides eos, which ends those of tuned models."""
  return ("\n",) if vocabulary.joining.one_text and not tuned else ()


def described(vocabulary: Vocabulary) -> dict[str, Any]:
  """What results record of it."""
  first, last = vocabulary.input_frame, vocabulary.target_frame
  end = ["eos"] if first.suffix == (vocabulary.eos,) else ["separator"] * bool(first.suffix)
  return {
    "family": vocabulary.family,
    "input": " ".join([*["bos"] * bool(first.prefix), "x", *end]),
    "target": " ".join([*["bos"] * bool(last.prefix), "y", *["eos"] * bool(last.suffix)]),
    "before the answer": vocabulary.joining.answer,
    "between examples": vocabulary.joining.examples,
    "one text": vocabulary.joining.one_text,
  }


def ranked(task: EvalTask, vocabulary: Vocabulary) -> EvalTask:
  """The task with its answers ranked by their log-probability instead of written by the model.

  Args:
    task: as `data.eval_task` gives it.
    vocabulary: the one that its examples were written with.

  Raises:
    ConfigError: the task's answers are not a few labels, and its records have no choices.
  """
  labels = catalog.find(task.label).labels
  if not labels and not task.examples.records[0].get("choices"):
    having = [name for name in catalog.task_names() if catalog.find(name).labels]
    raise ConfigError(
      f"answers of '{task.label}' cannot be ranked: it has no labels or choices. Tasks that have:"
      f" {', '.join(having)}."
    )
  options = [
    {
      answer: joining.option_tokens(vocabulary, record["inputs"], answer).tolist()
      for answer in record.get("choices") or labels
    }
    for record in task.examples.records
  ]
  return dataclasses.replace(task, options=options)
