"""Every listed metric by its name: what it returns, says of itself, and refuses."""

import os

import pytest

from promot_jax import errors
from promot_jax.metrics import metric as metric_lib
from promot_jax.metrics import registry
from promot_jax.training import selection

# What is neither a program nor a package beyond the base installation.
LIGHT = sorted(
  set(registry.METRICS)
  - {"coco_rougeL", "cider", "meteor", "meteor_nltk", "bertscore", "moverscore", "bleurt", "comet"}
)


@pytest.mark.parametrize("name", sorted(registry.METRICS))
def test_a_metric_gives_a_score_of_its_name_and_tells_its_settings(name):
  metric = registry.METRICS[name]
  assert name in metric.names
  assert isinstance(metric, metric_lib.Metric)
  text = metric_lib.describe(metric)
  assert text.startswith(type(metric).__name__ + "(")
  assert " at 0x" not in text


@pytest.mark.parametrize("name", LIGHT)
def test_scores_are_those_announced_and_on_their_scale(name):
  metric = registry.METRICS[name]
  scores = metric(["a small test of scores", ["yes", ""]], ["a small taste of scores", ""])
  assert tuple(scores) == metric.names
  assert all(metric.scale.holds(value) for value in scores.values())


@pytest.mark.parametrize("name", LIGHT)
def test_empty_outputs_are_scored(name):
  scores = registry.METRICS[name](["a b", "c"], ["", ""])
  assert all(value == (100 if score == "ter" else 0) for score, value in scores.items())


@pytest.mark.parametrize("name", sorted(registry.METRICS))
@pytest.mark.parametrize(
  ("targets", "message"), [(["a"], "1 targets and 2 pred"), ([], "0 targets")]
)
def test_unequal_lengths_are_refused_before_anything_is_computed(name, targets, message):
  with pytest.raises(errors.DataError, match=message):
    registry.METRICS[name](targets, ["a", "b"])


@pytest.mark.parametrize("data_set", ["webnlg", "dart", "e2e"])
def test_data_sets_have_their_own_rule_under_the_common_name(data_set):
  own = {name: metric for metric in registry.OFFICIAL[data_set] for name in metric.names}
  assert own["bleu"].signature != registry.find("bleu").signature
  assert {"bleu", "meteor"} <= set(own)


def test_macro_f1_is_made_for_the_labels_of_a_task():
  metric = registry.find("macro_f1", labels=("True", "False", "Neither"))
  assert metric.names[0] == "macro_f1"
  with pytest.raises(errors.ConfigError, match="is a mean over classes and got no labels"):
    registry.find("macro_f1")


def test_a_name_that_is_no_metric_is_answered_with_the_nearest_and_all_names():
  with pytest.raises(errors.ConfigError, match=r"'blue'; did you mean 'bleu'.*rouge2"):
    registry.find("blue")


def test_the_lowest_ter_is_the_best_validation():
  assert selection.optimum("ter", None) == "min"
  assert selection.optimum("wmt14/ter", None) == "min"
  assert selection.optimum("bleu", None) == "max"
  with pytest.raises(errors.ConfigError, match="would take the worst 'ter'"):
    selection.require_mode("Stage 's'", "ter", "max")


@pytest.mark.parametrize("name", ["coco_rougeL", "cider", "meteor"])
def test_metrics_that_run_java_say_so_where_there_is_none(name, monkeypatch):
  pytest.importorskip("pycocoevalcap")
  monkeypatch.setenv("PATH", os.devnull)
  with pytest.raises(errors.ConfigError, match=f"'{name}' runs the program 'java'.*default-jre"):
    registry.find(name)(["a b"], ["a b"])
