"""Mesh, rules, placement and the byte plan, on abstract T5 shapes and on eight CPU devices."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from promot_jax import errors, partitioning, paths
from promot_jax.methods import prompt

V, D, H, K, M = 24, 10, 6, 4, 16


def t5_shapes(vocabulary=V, width=D, heads=H, head_width=K, mlp=M, layers=2, dtype=jnp.float32):
  """Abstract parameters of a T5 1.1 by name, written out from the published naming."""
  joined = heads * head_width
  attention = {"query": (width, joined), "key": (width, joined), "value": (width, joined)}
  attention["out"] = (joined, width)
  shapes = {
    "token_embedder/embedding": (vocabulary, width),
    "decoder/logits_dense/kernel": (width, vocabulary),
  }
  blocks = {"encoder": ["attention"], "decoder": ["self_attention", "encoder_decoder_attention"]}
  for stack, names in blocks.items():
    shapes[f"{stack}/relpos_bias/rel_embedding"] = (heads, 32)
    shapes[f"{stack}/{stack}_norm/scale"] = (width,)
    for layer in range(layers):
      prefix = f"{stack}/layers/{layer}"
      for name in names:
        shapes[f"{prefix}/pre_{name}_layer_norm/scale"] = (width,)
        shapes.update({f"{prefix}/{name}/{k}/kernel": shape for k, shape in attention.items()})
      shapes[f"{prefix}/pre_mlp_layer_norm/scale"] = (width,)
      for k, shape in {"wi_0": (width, mlp), "wi_1": (width, mlp), "wo": (mlp, width)}.items():
        shapes[f"{prefix}/mlp/{k}/kernel"] = shape
  return {name: jax.ShapeDtypeStruct(shape, dtype) for name, shape in shapes.items()}


class Layer(nnx.Module):
  def __init__(self, rngs):
    self.kernel = nnx.Param(jax.random.normal(rngs.params(), (D, M)))


class Mlp(nnx.Module):
  def __init__(self, rngs):
    self.wi_0 = Layer(rngs)
    self.scale = nnx.Param(jnp.ones(D))


class Model(nnx.Module):
  def __init__(self, rngs):
    self.mlp = Mlp(rngs)


def test_default_rules_give_every_t5x_parameter_the_axes_that_t5x_gave_it(shared_data):
  seen = 0
  for checkpoint in ("t5_1_1_tiny", "prompt_t5_1_1_tiny", "t5_1_1_tiny_bf16"):
    manifest = json.loads(
      (shared_data / "t5x_checkpoint" / checkpoint / "manifest.json").read_text()
    )
    for name, axes in (manifest["mesh_axes"] or {}).items():
      if manifest["tree"][name] is None:  # no optimizer state for a frozen parameter
        continue
      shape = manifest["tree"][name]["shape"]
      ours = name.replace("layers_", "layers/")
      # None: T5X keeps the leaf whole on each device
      expected = PartitionSpec(*(axes or [None] * len(shape)))
      assert partitioning.T5_RULES.spec(ours, shape) == expected, name
      seen += 1
  assert seen > 100


def test_stacked_layers_keep_their_layer_axis_whole():
  spec = partitioning.T5_RULES.spec
  assert spec("encoder/layers/attention/query/kernel", (3, D, 8)) == PartitionSpec(
    None, None, "model"
  )
  assert spec("decoder/layers/mlp/wo/kernel", (3, M, D)) == PartitionSpec(None, "model", None)
  assert spec("0/v_row/decoder/layers/mlp/wo/kernel", (3, D)) == PartitionSpec(None, None)
  assert spec("0/mu/decoder/layers/mlp/wo/kernel", (3, M, D)) == PartitionSpec(None, "model", None)


def test_a_stack_of_one_layer_is_split_and_what_has_length_one_is_not():
  spec = partitioning.T5_RULES.spec
  axes = {
    ("top_layers/decoder/layers/mlp/wi_0/kernel", (1, D, M)): (None, None, "model"),
    ("encoder/layers/attention/query/bias", (1, H * K)): (None, "model"),
    ("encoder/relpos_bias/rel_embedding", (1, 32)): (None, None),
    ("encoder/layers/0/mlp/wi/bias/v", (1,)): (None,),  # what Adafactor keeps of no moment
    ("encoder/layers/0/mlp/wi/kernel/v", (1,)): (None,),
  }
  for (name, shape), expected in axes.items():
    assert spec(name, shape) == PartitionSpec(*expected), name


def test_prompts_are_on_every_device():
  spec = partitioning.T5_RULES.spec
  assert spec("encoder/prompt/prompt", (5, D)) == PartitionSpec(None, None)
  assert spec("encoder/prompt/prompt", (3, 5, D)) == PartitionSpec(None, None, None)


@pytest.mark.parametrize(
  "sizes, expected",
  [({}, (8, 1)), ({"model": 2}, (4, 2)), ({"data": 2, "model": -1}, (2, 4)), ({"data": 1}, (1, 1))],
)
def test_mesh_sizes_are_filled_up_with_the_devices_at_hand(sizes, expected):
  mesh = partitioning.make_mesh(**sizes)
  assert dict(mesh.shape) == {"data": expected[0], "model": expected[1]}
  assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
  "sizes", [{"model": 3}, {"data": 3, "model": 4}, {"data": 0}, {"data": -1, "model": -1}]
)
def test_mesh_sizes_that_do_not_fit_are_config_errors(sizes):
  with pytest.raises(errors.ConfigError):
    partitioning.make_mesh(**sizes)


def test_every_leaf_of_state_and_optimizer_gets_an_explicit_sharding():
  mesh = partitioning.make_mesh(data=4, model=2)
  state = nnx.state(Model(nnx.Rngs(0)))
  for tree in (state, optax.adam(1e-3).init(state)):
    result = paths.named_leaves(partitioning.shardings(tree, mesh))
    assert result.keys() == paths.named_leaves(tree).keys()
    assert all(isinstance(sharding, NamedSharding) for sharding in result.values())
    placed = partitioning.place(tree, mesh)
    assert jax.tree.structure(placed) == jax.tree.structure(tree)
    for name, leaf in paths.named_leaves(placed).items():
      assert leaf.sharding == result[name]
      assert len(leaf.sharding.device_set) == 8
      np.testing.assert_array_equal(leaf, paths.named_leaves(tree)[name])


def test_shardings_serve_as_jit_arguments_and_survive_a_step():
  mesh = partitioning.make_mesh(data=4, model=2)
  state = partitioning.place(nnx.state(Model(nnx.Rngs(0))), mesh)
  wanted = partitioning.shardings(state, mesh)
  step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), out_shardings=wanted)
  for name, leaf in paths.named_leaves(step(state)).items():
    assert leaf.sharding == paths.named_leaves(wanted)[name]


def test_a_model_built_in_shards_equals_the_model_built_whole():
  mesh = partitioning.make_mesh(data=2, model=4)
  built = partitioning.build(lambda: Model(nnx.Rngs(3)), mesh)
  whole = paths.named_leaves(Model(nnx.Rngs(3)))
  for name, leaf in paths.named_leaves(built).items():
    np.testing.assert_array_equal(leaf, whole[name])
  kernel = built.mlp.wi_0.kernel[...]
  assert {shard.data.shape for shard in kernel.addressable_shards} == {(D, M // 4)}


def test_abstract_leaves_carry_shape_dtype_and_sharding():
  mesh = partitioning.make_mesh(data=2, model=4)
  abstract = partitioning.abstract(nnx.eval_shape(lambda: Model(nnx.Rngs(0))), mesh)
  leaf = paths.named_leaves(abstract)["mlp/wi_0/kernel"]
  assert (leaf.shape, leaf.dtype) == ((D, M), jnp.float32)
  assert leaf.sharding == NamedSharding(mesh, PartitionSpec(None, "model"))


def test_a_host_batch_is_split_over_the_data_axis_only():
  mesh = partitioning.make_mesh(data=4, model=2)
  tokens = np.arange(24, dtype=np.int32).reshape(8, 3)
  batch = partitioning.global_batch({"tokens": tokens, "prompt_ids": np.arange(8)}, mesh)
  np.testing.assert_array_equal(batch["tokens"], tokens)
  assert {shard.data.shape for shard in batch["tokens"].addressable_shards} == {(2, 3)}
  assert batch["prompt_ids"].sharding.spec == PartitionSpec("data")


def test_a_batch_that_the_data_axis_does_not_divide_is_a_config_error():
  mesh = partitioning.make_mesh(data=4, model=2)
  with pytest.raises(errors.ConfigError, match="multiple of 4"):
    partitioning.global_batch({"tokens": np.zeros((6, 3), np.int32)}, mesh)


def test_six_heads_cannot_be_divided_over_four_and_the_error_tells_what_fits():
  shapes = t5_shapes()  # 6 heads of 4: the joined 24 would divide, the heads do not
  with pytest.raises(errors.ConfigError) as caught:
    partitioning.byte_plan(shapes, {"data": 16, "model": 4})
  assert "rel_embedding" in str(caught.value) and "model=4" in str(caught.value)
  assert "[1, 2]" in str(caught.value)  # gcd of 24, 6 and 16


def test_the_byte_plan_adds_up_to_what_devices_of_a_real_mesh_hold():
  mesh = partitioning.make_mesh(data=4, model=2)
  arrays = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in t5_shapes().items()}
  placed = partitioning.place(arrays, mesh)
  held = sum(leaf.addressable_shards[0].data.nbytes for leaf in placed.values())
  optimizer_state = jax.eval_shape(optax.adam(1e-3).init, arrays)
  for sizes in (mesh, mesh.abstract_mesh, {"data": 4, "model": 2}):
    plan = partitioning.byte_plan(arrays, sizes, trainable=".*", optimizer_state=optimizer_state)
    assert plan.parameters == plan.gradients == held
    assert plan.optimizer == 2 * held + 4  # two moments and the count
    assert plan.total == 4 * held + 4


def test_the_byte_plan_counts_gradients_and_moments_of_the_prompt_only():
  shapes = t5_shapes(dtype=jnp.bfloat16)
  frozen = sum(2 * int(np.prod(leaf.shape)) for leaf in shapes.values())
  shapes["encoder/prompt/prompt"] = jax.ShapeDtypeStruct((5, D), jnp.float32)
  plan = partitioning.byte_plan(
    shapes, {"data": 64, "model": 1}, trainable=prompt.SoftPrompt.parameters
  )
  assert plan.parameters == frozen + 4 * 5 * D
  assert plan.gradients == 4 * 5 * D
  assert plan.optimizer == 0


def test_mt5_xxl_on_64_chips_needs_the_bytes_that_t5x_measured():
  shapes = t5_shapes(vocabulary=250_112, width=4096, heads=64, head_width=64, mlp=10_240, layers=24)
  plan = partitioning.byte_plan(shapes, {"data": 4, "model": 16})
  # T5X's compiled mT5 XXL step has 3.26 GB of arguments a chip; factored Adafactor is small change.
  assert plan.parameters == pytest.approx(3.26e9, rel=0.02)
