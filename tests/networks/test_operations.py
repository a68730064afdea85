"""Operations on weights against float64 numpy, on arrays alone; order, seed and exact thresholds."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from promot_jax.errors import ConfigError
from promot_jax.networks.operations import Dare, LiNeS, Mean, Parameters, TaskArithmetic
from promot_jax.networks.ties import Ties

SHAPES = {
  "embedding": (7, 4),
  **{f"encoder/layers/{layer}/kernel": (4, 6) for layer in range(3)},
  **{f"decoder/layers/{layer}/kernel": (4, 5) for layer in range(2)},
  "decoder/norm/scale": (4,),
}


def drawn(seed: int) -> dict[str, np.ndarray]:
  draw = np.random.default_rng(seed)
  return {name: draw.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


BASE, FIRST, SECOND, THIRD = map(drawn, range(4))


def parameters(arrays) -> Parameters:
  shapes = {name: array.shape for name, array in arrays.items()}
  return Parameters(shapes=shapes, read=lambda name: jnp.asarray(arrays[name]))


def combined(operation, members, base=None, names=tuple(SHAPES)) -> dict[str, np.ndarray]:
  start = None if base is None else parameters(base)
  combination = operation.on(start, [parameters(member) for member in members])
  return {name: np.asarray(combination(name)) for name in names}


def moves(*members) -> dict[str, np.ndarray]:
  """[network ...] by name, in float64."""
  wide = {name: array.astype(np.float64) for name, array in BASE.items()}
  return {name: np.stack([m[name] - wide[name] for m in members]) for name in SHAPES}


def same(found, expected):
  for name, array in expected.items():
    np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-6, err_msg=name)
    assert found[name].dtype == np.float32


def test_a_soup_is_the_mean_of_its_members():
  members = (FIRST, SECOND, THIRD)
  wide = {name: [np.float64(member[name]) for member in members] for name in SHAPES}
  same(combined(Mean(), members), {name: np.mean(own, axis=0) for name, own in wide.items()})
  shares = [0.5, 0.3, 0.2]
  expected = {name: np.average(own, axis=0, weights=shares) for name, own in wide.items()}
  same(combined(Mean(weights=shares), members), expected)


@pytest.mark.parametrize("scales", [0.4, [0.7, -0.2]])
def test_task_arithmetic_adds_scaled_differences(scales):
  own = np.broadcast_to(scales, 2)
  expected = {
    name: BASE[name] + np.tensordot(own, move, axes=1)
    for name, move in moves(FIRST, SECOND).items()
  }
  same(combined(TaskArithmetic(scales=scales), (FIRST, SECOND), BASE), expected)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, BASE), (1.0, FIRST)])
def test_both_ends_of_the_line_are_the_networks_bit_for_bit(scale, expected):
  found = combined(TaskArithmetic(scales=scale), [FIRST], BASE)
  assert all(np.array_equal(found[name], expected[name]) for name in SHAPES)


def test_the_scale_of_lines_grows_with_the_layer_of_each_stack():
  scales = {"encoder/layers/1/kernel": 0.5, "encoder/layers/2/kernel": 0.8}
  scales |= {"decoder/layers/1/kernel": 0.8}  # the last of its stack
  expected = {
    name: BASE[name] + scales.get(name, 0.2) * move.sum(axis=0)
    for name, move in moves(FIRST, SECOND).items()
  }
  same(combined(LiNeS(alpha=0.2, beta=0.6), (FIRST, SECOND), BASE), expected)


def of_ties(trimmed: np.ndarray) -> np.ndarray:
  """Elect and merge, an entry at a time as the paper words it."""
  result = np.zeros(trimmed.shape[1:])
  for place in np.ndindex(result.shape):
    own = trimmed[(slice(None), *place)]
    sign = 1 if own.sum() >= 0 else -1
    agreeing = own[np.sign(own) == sign]
    result[place] = agreeing.mean() if len(agreeing) else 0
  return result


@pytest.mark.parametrize("trim", ["array", "model"])
@pytest.mark.parametrize("density", [0.3, 1.0, 1e-3])
def test_ties_trims_elects_and_merges(trim, density):
  members = (FIRST, SECOND, THIRD)
  found = moves(*members)
  everything = np.concatenate([own.reshape(3, -1) for own in found.values()], axis=1)
  for name, own in found.items():
    over = everything if trim == "model" else own.reshape(3, -1)
    kept = max(1, int(density * over.shape[1]))
    limits = np.sort(np.abs(over), axis=1)[:, -kept].reshape(3, *[1] * (own.ndim - 1))
    trimmed = np.where(np.abs(own) >= limits - 1e-7, own, 0)
    found[name] = BASE[name] + 0.7 * of_ties(trimmed)
  same(combined(Ties(density=density, scale=0.7, trim=trim), members, BASE), found)


def test_an_entry_whose_networks_cancel_out_follows_the_positive_one():
  zero, up, down = ({"a": np.float32([v])} for v in (0, 2, -2))
  (found,) = combined(Ties(density=1.0), (up, down), zero, ["a"]).values()
  assert found == [2]


def test_dare_drops_a_share_and_divides_the_rest():
  large = {"kernel": np.random.default_rng(5).normal(size=(200, 300)).astype(np.float32)}
  zero = {"kernel": np.zeros((200, 300), np.float32)}
  (found,) = combined(Dare(rate=0.9), [large], zero, ["kernel"]).values()
  kept = found != 0
  # Five standard deviations of 60,000 draws.
  assert abs(kept.mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / kept.size)
  np.testing.assert_allclose(found[kept], large["kernel"][kept] / 0.1, rtol=1e-6)
  assert (combined(Dare(rate=0.9, seed=1), [large], zero, ["kernel"])["kernel"] != found).any()


def test_what_dare_drops_depends_on_names_alone_and_differs_between_networks():
  operation = Dare(rate=0.5)
  together = combined(operation, (FIRST, SECOND), BASE)
  backwards = combined(operation, (FIRST, SECOND), BASE, names=tuple(SHAPES)[::-1])
  assert all(np.array_equal(together[name], backwards[name]) for name in SHAPES)
  one, two = np.zeros((50, 4), np.float32), np.ones((50, 4), np.float32)
  (twice,) = combined(operation, [{"a": two}] * 2, {"a": one}, ["a"]).values()
  assert set(np.unique(twice)) == {0, 2, 4}  # both may drop, one, or none
  other = combined(operation, [{"b": two}], {"b": one}, ["b"])["b"]
  assert (other != combined(operation, [{"a": two}], {"a": one}, ["a"])["a"]).any()


def test_dare_goes_before_any_operation_with_a_base():
  nothing = dataclasses.replace(Dare(rate=0.0), then=Ties(density=0.5))
  same(
    combined(nothing, (FIRST, SECOND), BASE),
    combined(Ties(density=0.5), (FIRST, SECOND), BASE),
  )


@pytest.mark.parametrize(
  ("make", "words"),
  [
    (lambda: Mean(weights=[0.5, 0.6]), "must have the sum 1"),
    (lambda: Mean(weights=[1.0]).require(2), r"are 1 numbers for 2 networks"),
    (lambda: TaskArithmetic(scales="a"), r"TaskArithmetic.scales='a' must be numbers"),
    (lambda: TaskArithmetic(scales=[1, 1, 1]).require(2), "3 numbers for 2 networks"),
    (lambda: LiNeS(beta=float("nan")), r"LiNeS.beta=nan must be"),
    (lambda: Ties(density=0), "would keep nothing"),
    (lambda: Ties(density=1.5), r"Ties.density=1.5 must be numbers from 0 to 1"),
    (lambda: Ties(trim="layer"), "'model' or 'array'"),
    (lambda: Dare(rate=1.0), "would drop all"),
    (lambda: Dare(seed=-1), "whole number from 0"),
    (lambda: Dare(then=Mean()), "takes no base"),
    (lambda: Dare(then="ties"), "is no operation on weights"),
  ],
)
def test_bad_values_are_refused_in_a_sentence(make, words):
  with pytest.raises(ConfigError, match=words):
    make()
