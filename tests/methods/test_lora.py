"""LoRA, DoRA and IA3 on tiny backbones: the formula, merging, stage 1 of ProMoT, files."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods import initializers, linears, lora
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.lora import LoRA
from promot_jax.models.layers import Linear, dropout
from promot_jax.networks import trained_methods
from tiny_models import batch_of, close, logits, moved, same_arrays, tiny


def backbone(kind="t5", scanned=False):
  return tiny(kind, scanned=scanned)


def test_a_layer_computes_the_formula_of_the_paper():
  linear = Linear(4, 6, rngs=nnx.Rngs(0), use_bias=True)
  random = np.random.default_rng(0)
  x, down, up = (random.normal(size=s).astype(np.float32) for s in ((2, 3, 4), (4, 2), (2, 6)))
  adapted = linears.AdaptedLinear(linear)
  adapted.lora = lora.LowRank(jnp.asarray(down), jnp.asarray(up), scale=1.5)
  adapted.parts = ("lora",)
  kernel = np.asarray(linear.kernel[...], np.float64)
  np.testing.assert_allclose(adapted(x), x @ (kernel + 1.5 * down @ up), rtol=1e-5, atol=1e-6)


def decomposed_layer(**fields):
  """(layer, x, W, b, A, B, m) of a decomposed kernel [4, 6] with s = 1.5; its last column is empty."""
  random = np.random.default_rng(0)
  shapes = ((2, 3, 4), (4, 6), (6,), (4, 2), (2, 6), (6,))
  values = [random.normal(size=shape).astype(np.float32) for shape in shapes]
  _, kernel, bias, down, up, magnitude = values
  kernel[:, -1] = up[:, -1] = 0
  linear = Linear(4, 6, rngs=nnx.Rngs(0), use_bias=True)
  linear.kernel, linear.bias = nnx.Param(jnp.asarray(kernel)), nnx.Param(jnp.asarray(bias))
  adapted = linears.AdaptedLinear(linear)
  arrays = map(jnp.asarray, (down, up))
  adapted.lora = lora.LowRank(*arrays, magnitude=jnp.asarray(magnitude), scale=1.5, **fields)
  adapted.parts = ("lora",)
  return adapted, *(value.astype(np.float64) for value in values)


def test_a_decomposed_layer_computes_the_formula_of_its_paper():
  layer, x, kernel, bias, down, up, magnitude = decomposed_layer()
  whole = kernel + 1.5 * down @ up
  lengths = np.sqrt((whole**2).sum(0))
  lengths[-1] = 1  # of the empty column, which stays empty
  expected = x @ (magnitude * whole / lengths) + bias
  found = layer(jnp.asarray(x, jnp.float32))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_a_decomposed_layer_takes_lengths_for_constants():
  layer, x, kernel, _, down, up, magnitude = decomposed_layer()
  weights = np.random.default_rng(1).normal(size=(2, 3, 6))
  found = jax.grad(lambda layer: jnp.sum(weights * layer(jnp.asarray(x, jnp.float32))))(layer)
  whole = kernel + 1.5 * down @ up
  lengths = np.where(np.arange(6) < 5, np.sqrt((whole**2).sum(0)), 1)
  rows, back = x.reshape(-1, 4), weights.reshape(-1, 6)
  of_product = rows.T @ (back * magnitude / lengths)  # of W + s A B
  for leaf, expected in (
    (found.lora.magnitude, (back * (rows @ whole / lengths)).sum(0)),
    (found.lora.down, 1.5 * of_product @ up.T),
    (found.lora.up, 1.5 * down.T @ of_product),
    (found.kernel, of_product),
  ):
    np.testing.assert_allclose(leaf[...], expected, rtol=1e-4, atol=1e-5)


def test_dropout_of_a_decomposed_layer_leaves_the_frozen_product_whole():
  layer, x, kernel, bias, down, up, magnitude = decomposed_layer(input_dropout=0.5)
  key, x = jax.random.key(3), jnp.asarray(x, jnp.float32)
  whole = kernel + 1.5 * down @ up
  lengths = np.where(np.arange(6) < 5, np.sqrt((whole**2).sum(0)), 1)
  seen = np.asarray(dropout(x, 0.5, jax.random.split(key, 1)[0]), np.float64)  # of its only part
  expected = np.asarray(x) @ kernel + bias + seen @ (magnitude * whole / lengths - kernel)
  np.testing.assert_allclose(layer(x, key=key), expected, rtol=1e-4, atol=1e-5)


def test_magnitudes_start_at_the_lengths_of_the_columns_also_of_a_plain_file(tmp_path):
  plain, method = LoRA(rank=2, alpha=3), LoRA(rank=2, alpha=3, decomposed=True)
  trained = moved(plain.attach(backbone(), nnx.Rngs(1)), plain)
  path = trained_methods.export(tmp_path / "lora.npz", trained, plain)
  start = dataclasses.replace(method, initializer=lora.FromFile(path=path))
  for model in (
    method.attach(backbone(scanned=True), nnx.Rngs(0)),
    start.attach(backbone(), nnx.Rngs(0)),
  ):
    leaves = {name: np.asarray(leaf) for name, leaf in paths.named_leaves(model).items()}
    found = [name.removesuffix("/lora/magnitude") for name in leaves if name.endswith("magnitude")]
    assert len(found) == sum(name.endswith("/lora/up") for name in leaves)
    for name in found:
      update = leaves[f"{name}/lora/down"] @ leaves[f"{name}/lora/up"]
      expected = np.sqrt(((leaves[f"{name}/kernel"] + 1.5 * update) ** 2).sum(-2))
      np.testing.assert_allclose(leaves[f"{name}/lora/magnitude"], expected, rtol=1e-6)


def test_a_decomposed_start_comes_from_its_file_and_plain_updates_refuse_it(tmp_path):
  method = LoRA(rank=2, decomposed=True)
  trained = moved(method.attach(backbone(), nnx.Rngs(1)), method)
  path = trained_methods.export(tmp_path / "dora.npz", trained, method)
  start = dataclasses.replace(method, initializer=lora.FromFile(path=path))
  same_arrays(start.attach(backbone(), nnx.Rngs(0)), trained)
  with pytest.raises(errors.ConfigError, match=r"dora.npz' holds magnitudes .*decomposed=True"):
    dataclasses.replace(start, decomposed=False).attach(backbone(), nnx.Rngs(0))


def test_it_starts_as_in_the_paper_with_nothing_added():
  model = LoRA(rank=3).attach(backbone(), nnx.Rngs(0))
  leaves = paths.named_leaves(model)
  downs = np.concatenate([np.ravel(leaf) for name, leaf in leaves.items() if name.endswith("down")])
  ups = [leaf for name, leaf in leaves.items() if name.endswith("up")]
  bound = backbone().config.width ** -0.5
  assert 0.9 * bound < np.abs(downs).max() <= bound and abs(downs.mean()) < 0.1 * bound
  assert len(ups) == 2 * (1 + 2 * 2) and all((np.asarray(leaf) == 0).all() for leaf in ups)


@pytest.mark.parametrize("scanned,decomposed", [(False, False), (True, False), (True, True)])
def test_merging_keeps_outputs_and_unmerging_gives_the_kernels_back_bit_for_bit(
  scanned, decomposed
):
  plain = backbone(scanned=scanned)
  method = LoRA(rank=2, alpha=5, targets=".*", decomposed=decomposed)
  model = moved(method.attach(plain, nnx.Rngs(0)), method)
  expected = logits(model)
  merged = lora.merge(model)
  close(logits(merged), expected)
  again = lora.unmerge(merged)
  np.testing.assert_array_equal(logits(again), expected)
  for restored, of in ((again, model), (method.detach(merged), plain)):
    same_arrays(restored, of)
  baked = method.merge(model)
  assert nnx.graphdef(baked) == nnx.graphdef(plain)
  np.testing.assert_array_equal(logits(baked), logits(merged))
  assert set(paths.parameter_names(merged)) == set(paths.named_leaves(model)), "kept is not trained"


def test_a_stage_of_promot_can_train_it_and_the_next_one_keeps_it():
  method = LoRA(rank=2, targets=".*/(query|value)")
  model = method.attach(backbone(), nnx.Rngs(1))
  batch = batch_of(model)

  def trained(model, patterns):
    graphdef, trainable, frozen = paths.split(model, patterns)

    @jax.jit
    def step(trainable, frozen):
      def loss(trainable):
        whole = nnx.merge(graphdef, trainable, frozen)
        scores = whole.logits(whole.hidden(batch))
        return optax.softmax_cross_entropy_with_integer_labels(
          scores, batch["decoder_target_tokens"]
        ).mean()

      return jax.tree.map(
        lambda leaf, grad: leaf - 0.1 * grad, trainable, jax.grad(loss)(trainable)
      )

    return nnx.merge(graphdef, step(trainable, frozen), frozen)

  first = trained(model, method.parameters)
  second = trained(first, f"!{method.parameters}")
  before, between, after = map(paths.named_leaves, (model, first, second))
  own = set(paths.match(method.parameters, before))
  assert any((np.asarray(between[n]) != np.asarray(before[n])).any() for n in own)
  for name in before:
    unmoved, of = (between, after) if name in own else (before, between)
    np.testing.assert_array_equal(of[name], unmoved[name], err_msg=name)
  removed = paths.named_leaves(method.detach(second))
  assert not own & set(removed)
  assert any((np.asarray(removed[n]) != np.asarray(before[n])).any() for n in removed)
  for name in removed:
    np.testing.assert_array_equal(removed[name], after[name])


def test_dropout_is_for_training_only():
  method = LoRA(rank=2, dropout_rate=0.5)
  model = moved(method.attach(backbone(), nnx.Rngs(1)), method)
  plain = dataclasses.replace(method, dropout_rate=0.0)
  still = moved(plain.attach(backbone(), nnx.Rngs(1)), plain)
  batch, key = batch_of(model), jax.random.key(0)
  np.testing.assert_array_equal(model.hidden(batch), still.hidden(batch))
  assert np.abs(model.hidden(batch, key=key) - still.hidden(batch, key=key)).max() > 1e-3


def test_updates_start_from_a_method_file(tmp_path):
  method = LoRA(rank=2, alpha=3)
  model = moved(method.attach(backbone(), nnx.Rngs(1)), method)
  path = trained_methods.export(tmp_path / "lora.npz", model, method)
  start = dataclasses.replace(method, initializer=lora.FromFile(path=path))
  for plain in (backbone(), backbone(scanned=True)):
    close(logits(start.attach(plain, nnx.Rngs(0))), logits(model), 5e-6)
  with pytest.raises(errors.ConfigError, match=r"set LoRA.rank=2 and LoRA.alpha=3"):
    dataclasses.replace(start, rank=4).attach(backbone(), nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="select the same"):
    dataclasses.replace(start, targets=".*/query").attach(backbone(), nnx.Rngs(0))


def test_a_bank_starts_from_the_files_of_separate_runs(tmp_path):
  method = LoRA(rank=2)
  alone = [moved(method.attach(backbone(), nnx.Rngs(1)), method, seed=seed) for seed in (3, 4)]
  files = [
    trained_methods.export(tmp_path / f"{number}.npz", model, method)
    for number, model in enumerate(alone)
  ]
  starts = initializers.PerTask(initializers=[lora.FromFile(path=path) for path in files])
  bank = dataclasses.replace(method, tasks=2, initializer=starts)
  found = paths.named_leaves(bank.attach(backbone(), nnx.Rngs(0)))
  for name in paths.match(method.parameters, found):
    expected = [paths.named_leaves(model)[name] for model in alone]
    np.testing.assert_array_equal(found[name], np.stack(expected))


def test_a_bank_starts_from_the_file_of_a_bank_with_as_many_tasks(tmp_path):
  method = LoRA(rank=2, tasks=2)
  bank = moved(method.attach(backbone(), nnx.Rngs(1)), method)
  path = trained_methods.export(tmp_path / "bank.npz", bank, method)
  start = dataclasses.replace(method, initializer=lora.FromFile(path=path))
  leaves, found = (
    paths.named_leaves(model) for model in (bank, start.attach(backbone(), nnx.Rngs(0)))
  )
  for name in paths.match(method.parameters, leaves):
    np.testing.assert_array_equal(found[name], leaves[name])
  with pytest.raises(errors.ConfigError, match="updates of 2 tasks and none for task number 2"):
    dataclasses.replace(start, tasks=3).attach(backbone(), nnx.Rngs(0))


def test_ia3_merges_into_kernels_and_biases():
  method = IA3(outputs=".*/(key|value)", inputs=".*/wo")
  for plain in (backbone("gpt2"), backbone("gpt2", scanned=True)):
    model = moved(method.attach(plain, nnx.Rngs(0)), method)
    merged = method.merge(model)
    assert nnx.graphdef(merged) == nnx.graphdef(plain)
    close(logits(merged), logits(model))


def test_what_does_not_fit_is_refused_with_a_sentence():
  model = backbone()
  with pytest.raises(errors.ConfigError) as caught:
    LoRA(targets="q_proj").attach(model, nnx.Rngs(0))
  message = str(caught.value)
  assert "LoRA.targets 'q_proj' selects no linear layer of T5" in message
  assert "query, key, value, out, wi_0, wi_1, wo" in message
  with pytest.raises(errors.ConfigError, match=r"LoRA.targets: .*\(query' is not a regular"):
    LoRA(targets="(query").attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="scale one side"):
    IA3(outputs=".*/wo").attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="select nothing"):
    IA3(outputs=None, inputs=None)
  with pytest.raises(errors.ConfigError, match="keep=True"):
    lora.unmerge(LoRA().attach(model, nnx.Rngs(0)))
  for fields, words in (
    ({"rank": 0}, "rank is 0"),
    ({"alpha": 0}, "alpha=0 must"),
    ({"dropout_rate": 1.0}, "dropout_rate=1.0 must"),
    ({"initializer": "uniform"}, "no initializer"),
    ({"decomposed": "yes"}, "decomposed is 'yes'; it must be True"),
    ({"decomposed": True, "tasks": 2}, "set tasks=1, or decomposed=False"),
  ):
    with pytest.raises(errors.ConfigError, match=words):
      LoRA(**fields)
