"""Outputs that models leave together are those of each model's own evaluation."""

import dataclasses
import math

import pytest

from promot_jax.decoding.strategies import Sample
from promot_jax.evaluation import results, together
from promot_jax.evaluation.evaluator import Kept
from promot_jax.models.ensemble import Ensemble
from promot_jax.models.sweep import Sweep

SHARES = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def echo(module_of_tests):
  return module_of_tests("evaluation/test_evaluator")


@pytest.fixture(scope="module")
def parts(module_of_tests):
  toy = module_of_tests("decoding/conftest").Toy
  return [toy(40, seed=1, eos_bonus=1.0), toy(40, seed=2, eos_bonus=1.0)]


def mixture(parts, share):
  return Ensemble(parts, weights=[share, 1 - share], space="probability")


def never():
  raise AssertionError("every output is there, and no model is made")


def test_each_evaluation_finds_its_outputs_and_makes_no_model(echo, parts, tmp_path):
  tasks = [
    echo.echo_task("a", range(5, 16), lengths=(3, 5)),
    echo.echo_task("ranked", [5, 6], options={"no": [5, 1], "yes": [6, 1]}),
  ]
  stores = [results.ResultStore(tmp_path / f"{share:g}") for share in SHARES]
  alone = [
    echo.run(
      mixture(parts, share), tasks[:1], store=results.ResultStore(tmp_path / "alone" / f"{share:g}")
    )
    for share in SHARES
  ]
  seen = []
  subjects = [echo.subject(never, identity=f"{share:g}") for share in SHARES]
  # One that is finished is left alone, and its outputs are not written again.
  echo.run(mixture(parts, SHARES[1]), tasks[:1], store=stores[1], identity="0.5")
  sweep = Sweep(mixture(parts, 0.5), [[share, 1 - share] for share in SHARES])
  prefixes = together.write(
    subjects,
    tasks,
    together=echo.subject(sweep),
    setting=echo.SETTING,
    batching=echo.BATCHING,
    kept=[Kept(store=store) for store in stores],
    progress=seen.append,
  )
  assert [(state.done, state.total) for state in seen] == [(0, 11), (4, 11), (8, 11), (11, 11)]
  written: list[list[list[int]]] = []
  for share, store, expected in zip(SHARES, stores, alone):
    (found,) = echo.run(never, tasks[:1], store=store, identity=f"{share:g}")
    assert found.scores == expected[0].scores and found.notes == expected[0].notes
    own = list(store.predictions("model", found))
    other = results.ResultStore(tmp_path / "alone" / f"{share:g}")
    apart = list(other.predictions("model", expected[0]))
    assert [each.raw for each in own] == [each.raw for each in apart]
    written.append([[int(word[1:]) for word in each.raw.split()] for each in own])
  # Every token and every end follows the tokens before it.
  rows = [
    {tuple(tokens[:n]) for tokens in each for n in range(len(tokens) + 1)} for each in zip(*written)
  ]
  total = sum(len(tokens) + 1 for each in written for tokens in each)
  assert (prefixes.distinct, prefixes.total) == (sum(map(len, rows)), total)
  assert 0 < prefixes.distinct < total and math.isclose(prefixes.share, prefixes.distinct / total)


def test_drawn_answers_are_left_to_each_model(echo, tmp_path):
  found = together.write(
    [echo.subject(never)],
    [echo.echo_task("a", [5])],
    together=echo.subject(never),
    setting=dataclasses.replace(echo.SETTING, strategy=Sample(), seed=1),
    batching=echo.BATCHING,
    kept=[Kept(store=results.ResultStore(tmp_path))],
    progress=lambda state: None,
  )
  assert found.share is None
