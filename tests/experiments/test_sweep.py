"""An ensemble whose share is chosen: as if each share had been run alone, and refused where that cannot be."""

import dataclasses
import functools
import json

import pytest

from promot_jax.analyses.lambda_sweep import LambdaSweep
from promot_jax.errors import ConfigError, DamagedRecord
from promot_jax.evaluation.records import TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import execute, sweep, value_choice
from promot_jax.experiments.value_choice import Candidate
from promot_jax.networks.ensemble import Ensemble
from promot_jax.networks.network import Network
from promot_jax.networks.run import Run
from tiny_experiments import BACKBONE, REPORT, SHORT, Lines, experiment, opened

FIRST = Network(backbone=BACKBONE, checkpoint="random", seed=0)
PAIR = Ensemble(members=[FIRST, dataclasses.replace(FIRST, seed=1)], weights=[0.5])
PLAN = dataclasses.replace(REPORT, unseen=())
SHARES = (0.25, 0.75, 1.0)


def made(folder, **changes):
  values = {**SHORT, "network": PAIR, "evaluation": PLAN, "shares": SHARES, **changes}
  return experiment("together", **{**values, "model_dir": str(folder)})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  folder, sink = tmp_path_factory.mktemp("shares") / "together", Lines()
  (outcome,) = execute.execute(made(folder), sinks=[sink])
  return folder, outcome, sink.lines


def test_the_chosen_share_is_measured_and_recorded(finished):
  folder, outcome, lines = finished
  # Networks of random values know no answer: all shares tie.
  why = (
    "share 0.25 is used, the maximum of accuracy on the selection split, 0, over 3 values; 0.25, 0.75, 1 tie"
    " and the smallest is taken"
  )
  assert outcome.why == why and why in lines
  assert outcome.experiment.network.weights == (0.25, 0.75)
  record = json.loads((folder / sweep.CHOICE).read_text())
  assert [each["value"] for each in record["candidates"]] == list(SHARES)
  assert all(each["low"] < 0.01 < each["high"] < 100 for each in record["candidates"])
  assert ResultStore(folder / "evaluation").read_run().settings["network: weights"] == "0.25, 0.75"
  # Others that start from the run, or learn from it, have the chosen share.
  assert Run(directory=str(folder)).identity().count("0.25 random") == 1
  assert sweep.settled(made(folder)) == outcome.experiment


def test_every_share_has_the_results_of_its_own_run(finished, tmp_path):
  folder, _, _ = finished
  splits = {"report": "validation"}  # what chose
  alone = made(
    tmp_path / "alone",
    shares=(),
    network=dataclasses.replace(PAIR, weights=[0.75]),
    task_splits=splits,
    evaluation=dataclasses.replace(PLAN, limit=SHORT["validation_limit"]),
  )
  (outcome,) = execute.execute(alone)
  (expected,) = outcome.results
  apart = ResultStore(tmp_path / "alone" / "evaluation")
  store = ResultStore(folder / "shares")
  found = store.find("share-0.75", expected)
  assert isinstance(found, TaskResult) and found.fingerprint == expected.fingerprint
  own, other = store.predictions("share-0.75", found), apart.predictions("pretrained", expected)
  assert [each.raw for each in own] == [each.raw for each in other]


def test_an_analysis_finds_what_the_choice_has_measured(finished):
  _, outcome, _ = finished
  directory = opened(outcome.experiment)
  directory.session.pretrained = functools.partial(pytest.fail, "no model is needed")
  found = LambdaSweep(shares=SHARES)([directory])
  assert [(row.share, row.split, row.chosen) for row in found.rows] == [
    (0.25, "validation", True),
    (0.75, "validation", False),
    (1.0, "validation", False),
  ]
  assert found.notes == (f"together: {outcome.why}.",)
  (panel,) = found.charts[""].panels
  assert [point.text for point in panel.series[0].points] == ["chosen", "", ""]


def test_a_choice_that_is_not_there_is_no_choice(finished, tmp_path):
  folder, _, _ = finished
  for other in (
    made(tmp_path),
    made(folder, shares=(0.25, 0.75)),
    made(folder, network=dataclasses.replace(PAIR, space="log")),
  ):
    with pytest.raises(
      ConfigError, match=r"no choice among the shares 0\.25, .*; repeat its promot train"
    ):
      sweep.settled(other)
  assert sweep.settled(made(tmp_path, shares=())).network == PAIR
  broken = tmp_path / sweep.CHOICE
  broken.write_text((folder / sweep.CHOICE).read_text().replace("0.25", "0.75"))
  with pytest.raises(DamagedRecord, match="Delete it and repeat promot train"):
    sweep.settled(made(tmp_path))


@pytest.mark.parametrize("shares", [[1.5], [-0.1], ["a"], [True], 0.5, "0.5", [float("nan")]])
def test_shares_are_numbers_from_0_to_1(shares):
  with pytest.raises(ConfigError, match=r"Experiment\.shares=.* a list of numbers from 0 to 1"):
    made("unused", shares=shares)
  with pytest.raises(ConfigError, match=r"LambdaSweep\.shares=.* a list of numbers from 0 to 1"):
    LambdaSweep(shares=shares)


def test_only_an_ensemble_of_two_has_a_share():
  assert made("unused", shares=[1, 0, 0.5, 0]).shares == (0.0, 0.5, 1.0)
  three = Ensemble(members=[FIRST] * 3)
  for network in (FIRST, three):
    with pytest.raises(ConfigError, match="no ensemble of two that is only measured"):
      made("unused", network=network)
    with pytest.raises(ConfigError, match="is no ensemble of two members"):
      LambdaSweep(shares=[0, 1])([opened(made("unused", network=network, shares=()))])
  with pytest.raises(ConfigError, match=r"LambdaSweep\.shares is empty"):
    LambdaSweep(shares=[])


def candidates(*scores):
  return [Candidate(value=value, score=score) for value, score in zip((0.5, 0.1, 0.9), scores)]


def test_the_best_candidate_is_chosen_and_the_smallest_of_equals():
  def chosen(scores, metric):
    return value_choice.choose(candidates(*scores), what="lambda", metrics=[metric]).value

  assert chosen((3, 2, 1), "accuracy") == 0.5
  assert chosen((3, 3, 3), "accuracy") == 0.1
  assert chosen((1, 3, 3), "accuracy") == 0.1
  assert chosen((3, 2, 1), "ter") == 0.9  # an error rate
  assert chosen((1, 2, 1), "ter") == 0.5
  with pytest.raises(
    ConfigError, match="by the mean of accuracy, ter: of some of them lower is better"
  ):
    value_choice.choose(candidates(1, 2, 3), what="lambda", metrics=["accuracy", "ter"])
  with pytest.raises(ConfigError, match=r"lambda 0\.1 has the score nan on the selection split"):
    value_choice.choose(candidates(1, float("nan"), 3), what="lambda", metrics=["accuracy"])
