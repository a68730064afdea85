"""The metrics by the names under which tasks ask for them as their headline score."""

from collections.abc import Mapping

from promot_jax.metrics import accuracy, bleu, exact_match, rouge
from promot_jax.metrics.metric import Metric

METRICS: Mapping[str, Metric] = {
  "accuracy": accuracy.accuracy,
  "exact_match": exact_match.exact_match,
  "bleu": bleu.bleu,
  "rouge2": rouge.rouge,
}

# Data sets whose own scorer computes a metric of that name by another rule.
_OWN: Mapping[tuple[str, str], Metric] = {
  ("trivia_qa", "exact_match"): exact_match.trivia_qa,
}


def metric_of(task: str, name: str) -> Metric:
  """The metric that gives the score `name` of a task: its data set's own rule where it has one.

  Args:
    task: without its number of demonstrations: 'trivia_qa'.
    name: a key of `METRICS`.
  """
  return _OWN.get((task, name), METRICS[name])
