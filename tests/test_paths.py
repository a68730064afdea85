"""The parameter-pattern language on small modules: names, selection, splitting, tables."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax import errors, paths


class Linear(nnx.Module):
  def __init__(self, features_in, features_out, rngs):
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (features_in, features_out)))


class Block(nnx.Module):
  def __init__(self, rngs):
    self.query = Linear(3, 5, rngs)
    self.out = Linear(5, 3, rngs)
    self.prefix = nnx.data(None)


class Stack(nnx.Module):
  def __init__(self, layers, rngs):
    self.layers = nnx.List([Block(rngs) for _ in range(layers)])
    self.norm = nnx.Param(jnp.ones(3))


class Model(nnx.Module):
  def __init__(self, rngs):
    self.encoder = Stack(2, rngs)
    self.embedding = nnx.Param(jnp.zeros((7, 3), jnp.bfloat16))


NAMES = [
  "embedding",
  "encoder/layers/0/out/kernel",
  "encoder/layers/0/query/kernel",
  "encoder/layers/1/out/kernel",
  "encoder/layers/1/query/kernel",
  "encoder/norm",
]
# embedding 7*3, four kernels 15 each, norm 3
SCALARS = 21 + 4 * 15 + 3


@pytest.fixture
def model():
  return Model(nnx.Rngs(0))


def test_leaves_of_a_module_are_named_by_slashes_with_list_positions_as_digits(model):
  leaves = paths.named_leaves(model)
  assert sorted(leaves) == NAMES
  assert leaves["encoder/layers/1/out/kernel"] is model.encoder.layers[1].out.kernel.get_value()


def test_module_state_and_abstract_model_have_the_same_names(model):
  abstract = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
  assert list(paths.named_leaves(nnx.state(model))) == list(paths.named_leaves(model))
  assert list(paths.named_leaves(abstract)) == list(paths.named_leaves(model))


def test_optimizer_states_are_named_with_unwrapped_leaves(model):
  leaves = paths.named_leaves(optax.adam(1e-3).init(nnx.state(model)))
  assert "0/count" in leaves
  assert leaves["0/mu/encoder/layers/1/query/kernel"].shape == (3, 5)
  assert not any(isinstance(leaf, nnx.Variable) for leaf in leaves.values())


@pytest.mark.parametrize("kind", ["module", "state", "optimizer", "dict"])
def test_replace_leaves_inverts_named_leaves(model, kind):
  tree = {
    "module": model,
    "state": nnx.state(model),
    "optimizer": optax.adam(1e-3).init(nnx.state(model)),
    "dict": {"a": [jnp.arange(2), jnp.arange(3)], "b": {"c": jnp.arange(5)}},
  }[kind]
  leaves = {name: leaf + 2 for name, leaf in paths.named_leaves(tree).items()}
  before = {name: np.array(leaf) for name, leaf in paths.named_leaves(tree).items()}
  replaced = paths.replace_leaves(tree, leaves)
  assert type(replaced) is type(tree)
  assert jax.tree.structure(replaced) == jax.tree.structure(tree)
  for name, leaf in paths.named_leaves(replaced).items():
    assert leaf is leaves[name]
  for name, leaf in paths.named_leaves(tree).items():
    np.testing.assert_array_equal(leaf, before[name])


def test_replace_leaves_names_missing_and_extra_leaves(model):
  leaves = paths.named_leaves(model)
  leaves["encoder/nrom"] = leaves.pop("encoder/norm")
  with pytest.raises(paths.PathError, match=r"encoder/norm.*encoder/nrom"):
    paths.replace_leaves(model, leaves)


@pytest.mark.parametrize(
  "patterns, expected",
  [
    (".*", NAMES),
    ("embedding", ["embedding"]),
    ([".*/out/.*", "embedding"], [NAMES[0], NAMES[1], NAMES[3]]),
    ([".*", "!.*/query/.*"], [NAMES[0], NAMES[1], NAMES[3], NAMES[5]]),
    (["!.*/query/.*", ".*"], [NAMES[0], NAMES[1], NAMES[3], NAMES[5]]),
    (["!.*/kernel"], ["embedding", "encoder/norm"]),
    (r"encoder/layers/\d+/query/kernel", [NAMES[2], NAMES[4]]),
  ],
)
def test_match_selects_whole_names_and_excludes_with_a_bang(patterns, expected):
  assert paths.match(patterns, NAMES) == expected


@pytest.mark.parametrize("pattern", ["encoder", "query", ".*/qeury/kernel", "!.*/qeury/kernel"])
def test_a_pattern_that_matches_nothing_is_an_error_with_near_names(pattern):
  with pytest.raises(paths.PathError) as caught:
    paths.match([".*", pattern], NAMES)
  assert repr(pattern) in str(caught.value)
  if "qeury" in pattern:
    assert re.search("nearest names are: encoder/layers/0/query/kernel", str(caught.value))
  assert isinstance(caught.value, errors.ConfigError)


@pytest.mark.parametrize("patterns", [[], ["(", ".*"], ["embedding", "!embedding"]])
def test_empty_broken_and_self_cancelling_patterns_are_errors(patterns):
  with pytest.raises(paths.PathError):
    paths.match(patterns, NAMES)


def test_split_and_merge_give_the_model_back(model):
  graphdef, trainable, frozen = paths.split(model, [".*/kernel", "!.*/0/.*"])
  assert sorted(paths.named_leaves(trainable)) == [NAMES[3], NAMES[4]]
  assert len(paths.named_leaves(frozen)) == 4
  merged = paths.merge(graphdef, trainable, frozen)
  for name, leaf in paths.named_leaves(merged).items():
    assert leaf is paths.named_leaves(model)[name]


def test_gradients_exist_for_the_trainable_state_only(model):
  graphdef, trainable, frozen = paths.split(model, "encoder/layers/1/out/kernel")

  def loss(trainable):
    merged = paths.merge(graphdef, trainable, frozen)
    return (
      merged.encoder.layers[1].out.kernel[...] * merged.encoder.layers[0].out.kernel[...]
    ).sum()

  gradients = paths.named_leaves(jax.grad(loss)(trainable))
  assert list(gradients) == ["encoder/layers/1/out/kernel"]
  np.testing.assert_array_equal(
    gradients["encoder/layers/1/out/kernel"], model.encoder.layers[0].out.kernel[...]
  )


def test_a_copy_shares_arrays_and_nothing_else(model):
  copied = paths.copy(model)
  for name, leaf in paths.named_leaves(copied).items():
    assert leaf is paths.named_leaves(model)[name]
  copied.encoder.norm.set_value(jnp.zeros(3))
  copied.encoder.layers[0].prefix = Linear(2, 2, nnx.Rngs(1))
  np.testing.assert_array_equal(model.encoder.norm[...], np.ones(3))
  assert model.encoder.layers[0].prefix is None


def test_changing_a_split_state_leaves_the_model_alone(model):
  _, trainable, _ = paths.split(model, "encoder/norm")
  trainable["encoder"]["norm"].set_value(jnp.zeros(3))
  np.testing.assert_array_equal(model.encoder.norm[...], np.ones(3))


def test_counts_and_bytes_are_the_same_for_abstract_models(model):
  abstract = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
  for tree in (model, abstract):
    assert paths.count(tree) == SCALARS
    assert paths.nbytes(tree) == 2 * 21 + 4 * (SCALARS - 21)


def test_the_table_tells_shape_dtype_sharding_and_what_is_trained(model):
  class Rules:
    def spec(self, name, shape):
      axes = ("model", None) if name == "embedding" else (None,) * len(shape)
      return jax.sharding.PartitionSpec(*axes)

  rows = paths.parameter_table(model, ".*/kernel", Rules())
  by_name = {row.name: row for row in rows}
  assert by_name["embedding"] == paths.Row(
    name="embedding", shape=(7, 3), dtype="bfloat16", sharding="model,-", trainable=False
  )
  assert by_name["encoder/layers/0/query/kernel"].trainable
  assert by_name["encoder/norm"].sharding == "replicated"


def test_the_printed_table_joins_equal_layers_and_adds_up(model):
  text = paths.format_table(paths.parameter_table(model, ".*/query/kernel"))
  assert "encoder/layers/0..1/query/kernel" in text
  assert f"trained: 30 of {SCALARS} scalars (35.71 %); encoder 30" in text
  assert "frozen: 54 of 84 scalars (64.29 %)" in text
  assert sorted(text.splitlines()[-1].split("; ")[1].split(", ")) == ["embedding 21", "encoder 33"]


def test_shapes_after_a_change_are_the_objects_that_it_hands_on():
  class Pair(nnx.Module):
    def __init__(self, first, second):
      self.first, self.second = nnx.Param(first), nnx.Param(second)

  model = nnx.eval_shape(lambda: Pair(jnp.zeros((2, 3)), jnp.zeros(5)))
  given = paths.named_leaves(model)

  def change(pair):
    return Pair(pair.second[...], pair.first[...].sum(axis=0).astype(jnp.bfloat16))

  found = paths.shapes_after(change, model)
  leaves = paths.named_leaves(found)
  assert leaves["first"] is given["second"]
  assert (leaves["second"].shape, leaves["second"].dtype) == ((3,), jnp.bfloat16)
  both = {"one": model, "other": found}
  assert list(paths.distinct(both)) == ["one/first", "one/second", "other/second"]
  assert paths.count(paths.distinct(both)) == 6 + 5 + 3
