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
