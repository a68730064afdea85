"""Adapters, BitFit and top layers on tiny backbones: formulas, sizes, what is computed and what not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from promot_jax import errors, paths
from promot_jax.methods.adapter import Adapter
from promot_jax.methods.bias import BitFit
from promot_jax.methods.lora import LoRA
from promot_jax.methods.top_layers import TopLayers
from promot_jax.models import stack
from promot_jax.models.scanning import stack_layers
from tiny_models import batch_of, same_arrays, tiny

WIDTH, INNER = 12, 2 * 5  # of the tiny T5
T5_LAYERS = {"encoder_layers": 2, "decoder_layers": 3}


def backbone(kind="t5", scanned=False):
  return tiny(kind, scanned=scanned, **(T5_LAYERS if kind == "t5" else {"layers": 3}))


def names(model, pattern):
  return paths.match(pattern, paths.named_leaves(model))


def test_both_placements_compute_their_formulas():
  random = np.random.default_rng(0)
  x = random.normal(size=(2, 3, WIDTH)).astype(np.float32)

  def bottleneck(adapter, x, activation):
    down, up = (
      (np.asarray(part.kernel[...], np.float64), np.asarray(part.bias[...], np.float64))
      for part in (adapter.down, adapter.up)
    )
    return activation(x @ down[0] + down[1]) @ up[0] + up[1]

  model = Adapter(bottleneck=3, placement="lin", std=1.0).attach(backbone(), nnx.Rngs(0))
  adapter = model.encoder.layers[1].adapter
  normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
  expected = x + bottleneck(adapter, normal, lambda h: np.maximum(h, 0))
  np.testing.assert_allclose(adapter(x), expected, rtol=1e-4, atol=1e-5)

  model = Adapter(bottleneck=3, activation="relu", std=1.0).attach(backbone(), nnx.Rngs(0))
  linear = model.encoder.layers[1].attention.out
  x = random.normal(size=(2, 3, INNER)).astype(np.float32)
  y = x @ np.asarray(linear.kernel[...], np.float64)
  expected = y + bottleneck(linear.adapter, y, lambda h: np.maximum(h, 0))
  np.testing.assert_allclose(linear(x), expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_of_a_layer_is_behind_its_residual():
  model = Adapter(bottleneck=3, placement="lin", std=1.0).attach(backbone("gpt2"), nnx.Rngs(0))
  layer, plain = model.decoder.layers[0], backbone("gpt2").decoder.layers[0]
  x = np.random.default_rng(0).normal(size=(1, 4, WIDTH)).astype(np.float32)
  given = {"mask": jnp.ones((1, 1, 4, 4), bool), "positions": jnp.arange(4)[None], "key": None}
  found, _ = layer(x, **given)
  expected, _ = plain(x, **given)
  np.testing.assert_allclose(found, layer.adapter(expected), rtol=1e-5, atol=1e-6)


def test_places_are_those_of_the_papers():
  attached = {
    cross: Adapter(bottleneck=2, cross_attention=cross).attach(backbone(), nnx.Rngs(0))
    for cross in (False, True)
  }
  found = {
    cross: {name.split("/adapter/")[0] for name in names(model, ".*/adapter/.*")}
    for cross, model in attached.items()
  }
  decoder = {
    f"decoder/layers/{i}/{part}" for i in range(3) for part in ("self_attention/out", "mlp/wo")
  }
  encoder = {f"encoder/layers/{i}/{part}" for i in range(2) for part in ("attention/out", "mlp/wo")}
  assert found[False] == encoder | decoder
  cross = {f"decoder/layers/{i}/encoder_decoder_attention/out" for i in range(3)}
  assert found[True] == encoder | decoder | cross


@pytest.mark.parametrize("placement", ["houlsby", "lin"])
@pytest.mark.parametrize("scanned", [False, True])
def test_the_bottleneck_can_be_given_as_a_share_of_the_parameters(placement, scanned):
  model = backbone("gpt2", scanned)
  share = 0.2
  method = Adapter(bottleneck=None, share=share, placement=placement)
  attached = method.attach(model, nnx.Rngs(0))
  own = sum(paths.named_leaves(attached)[name].size for name in names(attached, method.parameters))
  places = 3 if placement == "lin" else 6
  half_a_step = places * (2 * WIDTH + 1) / 2 / paths.count(model)
  assert abs(own / paths.count(model) - share) <= half_a_step + 1e-9
  with pytest.raises(errors.ConfigError, match="give at least that"):
    Adapter(bottleneck=None, share=1e-3).attach(model, nnx.Rngs(0))


def test_trained_norms_leave_with_the_adapters():
  model = backbone()
  method = Adapter(bottleneck=2, train_norms=True)
  attached = method.attach(model, nnx.Rngs(0))
  norms = [name for name in names(attached, method.parameters) if name.startswith("adapter_norms")]
  assert len(norms) == 2 * 2 + 3 * 3 + 2
  changed = paths.named_leaves(attached)
  changed = {n: leaf * 2 if n in norms else leaf for n, leaf in changed.items()}
  detached = method.detach(paths.replace_leaves(attached, changed))
  same_arrays(detached, model)


def test_bitfit_trains_biases_or_else_the_scales_of_norms():
  biased = BitFit().attach(backbone("gpt2"), nnx.Rngs(0))
  own = names(biased, "bitfit/.*")
  assert len(own) == 3 * (4 + 2 + 2) + 1 and all(name.endswith("/bias") for name in own)
  free = BitFit().attach(backbone(), nnx.Rngs(0))
  own = names(free, "bitfit/.*")
  assert len(own) == 2 * 2 + 3 * 3 + 2 and all(name.endswith("/scale") for name in own)


@pytest.mark.parametrize("scanned", [False, True])
def test_trained_copies_act_as_the_parameters_in_place(scanned):
  model = backbone("gpt2", scanned)
  for method in (BitFit(), TopLayers(layers=2)):
    attached = method.attach(model, nnx.Rngs(0))
    leaves = paths.named_leaves(attached)
    own = names(attached, method.parameters)
    changed = paths.replace_leaves(
      attached, {**leaves, **{name: leaves[name] * 1.5 + 0.1 for name in own}}
    )
    merged = method.merge(changed)
    assert nnx.graphdef(merged) == nnx.graphdef(model)
    batch = batch_of(model)
    np.testing.assert_allclose(changed.hidden(batch), merged.hidden(batch), rtol=1e-5, atol=1e-5)
    assert np.abs(merged.hidden(batch) - model.hidden(batch)).max() > 1e-2


@pytest.mark.parametrize("scanned", [False, True])
def test_nothing_is_kept_or_computed_backwards_below_the_top_layers(scanned):
  method = TopLayers(layers=1)
  attached = method.attach(backbone("gpt2", scanned), nnx.Rngs(0))
  graphdef, trainable, frozen = paths.split(attached, method.parameters)
  batch = batch_of(attached)

  def loss(trainable):
    whole = nnx.merge(graphdef, trainable, frozen)
    return jnp.sum(whole.hidden(batch) ** 2)

  def loss_of_all(frozen):
    return jnp.sum(nnx.merge(graphdef, trainable, frozen).hidden(batch) ** 2)

  kept = [
    sum(leaf.size for leaf in jax.tree.leaves(jax.vjp(function, of)[1]))
    for function, of in ((loss, trainable), (loss_of_all, frozen))
  ]
  assert kept[0] < 0.6 * kept[1]


def test_top_layers_names_count_from_the_first_trained_one():
  for scanned in (False, True):
    model = TopLayers(layers=2, stacks=("encoder", "decoder")).attach(
      backbone("t5", scanned), nnx.Rngs(0)
    )
    own = names(model, "top_layers/.*")
    norms = {f"top_layers/{part}/{part}_norm/scale" for part in ("encoder", "decoder")}
    assert norms <= set(own)
    if scanned:
      assert paths.named_leaves(model)["top_layers/decoder/layers/mlp/wo/kernel"].shape[0] == 2
    else:
      numbers = {name.split("/")[3] for name in own if "/layers/" in name}
      assert numbers == {"0", "1"}
      leaves = paths.named_leaves(model)
      assert (
        leaves["top_layers/decoder/layers/0/mlp/wo/kernel"]
        is leaves["decoder/layers/1/mlp/wo/kernel"]
      )


def test_several_methods_stand_at_one_linear_layer():
  methods = [LoRA(rank=2, targets=".*"), Adapter(bottleneck=2), BitFit()]
  model = backbone("gpt2")
  for method in methods:
    model = method.attach(model, nnx.Rngs(1))
  linear = model.decoder.layers[0].mlp.wo
  assert linear.parts == ("lora", "adapter")
  for method in methods:  # not the opposite order
    model = method.detach(model)
  same_arrays(model, backbone("gpt2"))


def test_a_split_stack_is_the_whole_one():
  layers = backbone("gpt2", True).decoder.layers
  upper = jax.tree.map(lambda leaf: leaf[1:], layers)
  split = stack.SplitLayers(layers, upper)
  inputs = jnp.arange(3.0)

  def step(layer, carry, own):
    return carry + layer.mlp.wo.kernel[...].sum() * own, carry

  whole, apart = (stack.run(form, step, jnp.zeros(()), inputs) for form in (layers, split))
  np.testing.assert_allclose(apart[0], whole[0], rtol=1e-6)
  np.testing.assert_allclose(apart[1], whole[1], rtol=1e-6)
  assert stack.count(split) == 3


def test_what_does_not_fit_is_refused_with_a_sentence():
  model = backbone("gpt2")
  for method, words in (
    (TopLayers(layers=4), "the decoder has 3 layers"),
    (TopLayers(stacks=["encoder"]), "DecoderLM has none"),
    (BitFit(targets=".*/embedding"), "read the output kernel"),
    (BitFit(targets=".*/offset"), "matches none"),
  ):
    with pytest.raises(errors.ConfigError, match=words):
      method.attach(model, nnx.Rngs(0))
  for kind, fields, words in (
    (Adapter, {"bottleneck": None}, "set one of them"),
    (Adapter, {"share": 0.1}, "set one of them"),
    (Adapter, {"bottleneck": None, "share": 3}, "0.03 for 3 %"),
    (Adapter, {"placement": "pfeiffer"}, "'houlsby' or 'lin'"),
    (Adapter, {"activation": "tan"}, "activation is 'tan'"),
    (TopLayers, {"layers": 0}, "at least 1"),
    (TopLayers, {"stacks": ["middle"]}, "'decoder', 'encoder' or both"),
  ):
    with pytest.raises(errors.ConfigError, match=words):
      kind(**fields)
  uneven = BitFit(targets="decoder/layers/1/.*/bias").attach(model, nnx.Rngs(0))
  with pytest.raises(errors.ConfigError, match="differ in"):
    stack_layers(uneven)
