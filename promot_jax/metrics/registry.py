"""The metrics by the names under which tasks and users ask for them as their headline score.

Each returns a score of its own name, most of them that one alone.  Making one imports no library: what
a metric needs beyond the base installation is asked for when it scores.
"""

import dataclasses
import difflib
import importlib.util
import shutil
from collections.abc import Mapping, Sequence

from promot_jax import errors
from promot_jax.metrics import (
  accuracy,
  answer_f1,
  bertscore,
  bleu,
  bleurt,
  captions,
  chrf,
  class_f1,
  comet,
  exact_match,
  meteor,
  moverscore,
  nist,
  rouge,
  ter,
)
from promot_jax.metrics.metric import ListedMetric, Scale

METRICS: Mapping[str, ListedMetric] = {
  "accuracy": accuracy.accuracy,
  "exact_match": exact_match.exact_match,
  "f1": answer_f1.f1,
  "bleu": bleu.bleu,
  "multi_bleu": bleu.multi_bleu,
  "multi_bleu_lc": bleu.multi_bleu_lc,
  "mteval_bleu": bleu.mteval_bleu,
  "chrf": chrf.chrf,
  "chrf++": chrf.chrf_plus_plus,
  "ter": ter.ter,
  "nist": nist.nist,
  "rouge1": rouge.rouge,
  "rouge2": rouge.rouge,
  "rougeL": rouge.rouge,
  "rougeLsum": rouge.rouge_sum,
  "coco_rougeL": captions.coco_rouge_l,
  "cider": captions.cider,
  "meteor": meteor.meteor,
  "meteor_nltk": meteor.meteor_nltk,
  "bertscore": bertscore.bertscore,
  "moverscore": moverscore.moverscore,
  "bleurt": bleurt.bleurt,
  "comet": comet.comet,
}

MACRO_F1 = class_f1.MACRO
"""The one that is made for a task's labels (`class_f1.ClassF1`)."""

NAMES = (*METRICS, MACRO_F1)

OFFICIAL: Mapping[str, tuple[ListedMetric, ...]] = {
  "squad": (answer_f1.f1,),
  "mrqa": (answer_f1.f1,),
  "trivia_qa": (exact_match.trivia_qa, answer_f1.trivia_qa),
  "webnlg": (dataclasses.replace(bleu.multi_bleu_lc, name="bleu"), meteor.meteor, ter.tercom),
  "dart": (dataclasses.replace(bleu.multi_bleu, name="bleu"), meteor.meteor, ter.tercom),
  "e2e": (
    dataclasses.replace(bleu.mteval_bleu, name="bleu"),
    nist.nist,
    meteor.Meteor(tokenizer="ptb"),
    captions.coco_rouge_l,
    captions.cider,
  ),
}
"""What a data set's own scorer computes, under the names that its tables use."""


def official(data_set: str) -> tuple[ListedMetric, ...]:
  """Those of `OFFICIAL` that this machine can score: the captions' scorers need a package and Java.

  A run of hours must not end at its last step for want of them; docs/tasks.md says which they are.
  """
  # Looked for without importing or starting anything.
  there = importlib.util.find_spec("pycocoevalcap") is not None and shutil.which("java") is not None
  java = (captions.CocoRougeL, captions.Cider, meteor.Meteor)
  return tuple(each for each in OFFICIAL[data_set] if there or not isinstance(each, java))


def find(name: str, *, labels: Sequence[str] = ()) -> ListedMetric:
  """The metric that gives the score `name`.

  Args:
    name: one of `NAMES`.
    labels: the task's classes, for 'macro_f1'.

  Raises:
    ConfigError: there is no metric of that name, or it needs labels and there are none.
  """
  if name == MACRO_F1:
    if not labels:
      raise errors.ConfigError(
        f"The metric '{MACRO_F1}' is a mean over classes and got no labels; give the labels of the "
        "task, or choose 'accuracy'."
      )
    return class_f1.ClassF1(labels=tuple(labels))
  if name not in METRICS:
    near = difflib.get_close_matches(name, NAMES, n=1)
    hint = f"did you mean '{near[0]}'? They are" if near else "they are"
    raise errors.ConfigError(f"There is no metric '{name}'; {hint} {', '.join(NAMES)}.")
  return METRICS[name]


def scale_of(score: str) -> Scale:
  """The scale of a score by its name; any number of those that no listed metric gives."""
  unlisted = Scale(low=None, high=None)
  if score == MACRO_F1:
    return class_f1.ClassF1.scale
  return next((each.scale for each in METRICS.values() if score in each.names), unlisted)
