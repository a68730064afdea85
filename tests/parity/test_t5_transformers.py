"""Our T5 against transformers' T5, mT5 and umT5, with random weights that transformers drew.

Tolerances: both sides add up float32 products in different orders, so a result can differ by about
sqrt(n) * 6e-8 of its largest term for n terms; over a handful of layers 2e-5 of the largest logit
and, with the backward pass behind it, 1e-4 of a parameter's largest gradient are a few times that.
Any wrong bucket, mask, scale or activation is off by 1e-2 or more.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tiny_transformers
from promot_jax import paths
from promot_jax.models import T5, T5Config, stack_layers

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

SHAPE = {"vocab_size": 50, "num_decoder_layers": 3, "dropout_rate": 0.0}
VARIANTS = {
  "t5_1_0": {
    "feed_forward_proj": "relu",
    "tie_word_embeddings": True,
    "scale_decoder_outputs": True,
  },
  "t5_1_1": {
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "scale_decoder_outputs": False,
  },
  "mt5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
  "umt5": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}
OURS = {
  "t5_1_0": {"mlp_activations": ("relu",), "tied_logits": True},
  "t5_1_1": {"mlp_activations": ("gelu", "linear")},
  "mt5": {"mlp_activations": ("gelu", "linear")},
  "umt5": {"mlp_activations": ("gelu", "linear"), "relative_bias": "per_layer"},
}
ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
SUBLAYERS = {
  "encoder": [("SelfAttention", "attention", "pre_attention_layer_norm")],
  "decoder": [
    ("SelfAttention", "self_attention", "pre_self_attention_layer_norm"),
    ("EncDecAttention", "encoder_decoder_attention", "pre_cross_attention_layer_norm"),
  ],
}


def _names(config, *, gated: bool, tied: bool, own_biases: bool) -> dict[str, tuple[str, bool]]:
  """Our name -> (transformers' name, whether the array is transposed)."""
  names = {"token_embedder/embedding": ("shared.weight", False)}
  if not tied:
    names["decoder/logits_dense/kernel"] = ("lm_head.weight", True)
  depth = {"encoder": config.num_layers, "decoder": config.num_decoder_layers}
  for side, layers in depth.items():
    names[f"{side}/{side}_norm/scale"] = (f"{side}.final_layer_norm.weight", False)
    for i in range(layers if own_biases else 1):
      table = f"{side}.block.{i}.layer.0.SelfAttention.relative_attention_bias.weight"
      owner = f"{side}/layers/{i}" if own_biases else side
      names[f"{owner}/relpos_bias/rel_embedding"] = (table, True)
    for i in range(layers):
      for j, (theirs, ours, norm) in enumerate(SUBLAYERS[side]):
        layer = f"{side}.block.{i}.layer.{j}"
        names[f"{side}/layers/{i}/{norm}/scale"] = (f"{layer}.layer_norm.weight", False)
        for short, long in ATTENTION.items():
          kernel = f"{side}/layers/{i}/{ours}/{long}/kernel"
          names[kernel] = (f"{layer}.{theirs}.{short}.weight", True)
      layer = f"{side}.block.{i}.layer.{len(SUBLAYERS[side])}"
      names[f"{side}/layers/{i}/pre_mlp_layer_norm/scale"] = (f"{layer}.layer_norm.weight", False)
      for kernel in ("wi_0", "wi_1", "wo") if gated else ("wi", "wo"):
        names[f"{side}/layers/{i}/mlp/{kernel}/kernel"] = (
          f"{layer}.DenseReluDense.{kernel}.weight",
          True,
        )
  return names


def _batch(source_length: int):
  random = np.random.default_rng(7)
  source = random.integers(2, SHAPE["vocab_size"], (3, source_length)).astype(np.int32)
  source[1, source_length - 4 :] = 0  # padding at the end
  source[2, 1] = 0  # and, unusual but legal, inside
  targets = random.integers(2, SHAPE["vocab_size"], (3, 6)).astype(np.int32)
  targets[0, 4:] = 0
  shifted = np.concatenate([np.zeros((3, 1), np.int32), targets[:, :-1]], 1)
  return {
    "encoder_input_tokens": source,
    "encoder_input_mask": source != 0,  # without it only the pad ids at the end are padding
    "decoder_input_tokens": shifted,
    "decoder_target_tokens": targets,
  }


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def pair(request, tmp_path_factory):
  """(their model, our model with the same weights, name map); weights went through their file."""
  variant = request.param
  kind = variant if variant in ("mt5", "umt5") else "t5"
  torch.manual_seed(0)
  model = tiny_transformers.build(kind, **SHAPE, **VARIANTS[variant]).eval()
  config = model.config
  tied = OURS[variant].get("tied_logits", False)
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if "layer_norm" in name or "relative_attention_bias" in name:
        weight.copy_(torch.randn_like(weight) * 0.5 + 1)  # 1 and near 0 would hide mistakes
      elif "shared" not in name:
        weight.copy_(torch.randn_like(weight) * 0.2)
    if not tied:
      # transformers 5 ties always; an untied head is what the released files hold.
      model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 24) * 0.2)
  folder = tmp_path_factory.mktemp(variant)
  model.save_pretrained(folder)
  stored = safetensors_numpy.load_file(folder / "model.safetensors")
  names = _names(
    config,
    gated="gated" in config.feed_forward_proj,
    tied=tied,
    own_biases=variant == "umt5",
  )
  ours = T5(
    T5Config(
      vocab_size=config.vocab_size,
      width=config.d_model,
      heads=config.num_heads,
      head_width=config.d_kv,
      mlp_width=config.d_ff,
      encoder_layers=config.num_layers,
      decoder_layers=config.num_decoder_layers,
      **OURS[variant],
    ),
    nnx.Rngs(0),
  )
  leaves = {}
  for name, (stored_name, transposed) in names.items():
    leaves[name] = stored[stored_name].T if transposed else stored[stored_name]
  return model, paths.replace_leaves(ours, leaves), names


def _their_run(model, batch):
  tokens = torch.tensor(batch["encoder_input_tokens"], dtype=torch.long)
  model.zero_grad()
  logits = model(
    input_ids=tokens,
    attention_mask=(tokens > 0).long(),
    decoder_input_ids=torch.tensor(batch["decoder_input_tokens"], dtype=torch.long),
  ).logits
  targets = torch.tensor(batch["decoder_target_tokens"], dtype=torch.long)
  loss = torch.nn.functional.cross_entropy(
    logits.flatten(0, 1), targets.flatten(), ignore_index=0, reduction="sum"
  )
  loss.backward()
  gradients = {name: weight.grad.numpy() for name, weight in model.named_parameters()}
  return logits.detach().numpy(), loss.item(), gradients


@jax.jit
def _our_run(model, batch):
  graphdef, state = nnx.split(model)

  def loss(state):
    model = nnx.merge(graphdef, state)
    logits = model.logits(model.hidden(batch))
    targets = batch["decoder_target_tokens"]
    of_targets = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], -1)[..., 0]
    return -jnp.sum(of_targets * (targets > 0)), logits

  (loss, logits), gradients = jax.value_and_grad(loss, has_aux=True)(state)
  return logits, loss, gradients


@pytest.mark.parametrize("source_length", [9, 140])
def test_logits_loss_and_all_gradients_equal_transformers(pair, source_length):
  theirs, ours, names = pair
  batch = _batch(source_length)
  expected_logits, expected_loss, expected_gradients = _their_run(theirs, batch)
  logits, loss, gradients = _our_run(ours, batch)
  largest = np.abs(expected_logits).max()
  np.testing.assert_allclose(logits, expected_logits, atol=2e-5 * largest, rtol=0)
  np.testing.assert_allclose(loss, expected_loss, rtol=2e-5)
  gradients = paths.named_leaves(gradients)
  assert gradients.keys() == names.keys()
  for name, (their_name, transposed) in names.items():
    expected = expected_gradients[their_name]
    expected = expected.T if transposed else expected
    largest = np.abs(expected).max()
    assert largest > 0, name
    np.testing.assert_allclose(gradients[name], expected, atol=1e-4 * largest, rtol=0, err_msg=name)


def test_scanned_layers_equal_transformers(pair):
  theirs, ours, _ = pair
  batch = _batch(9)
  expected, _, _ = _their_run(theirs, batch)
  logits = jax.jit(lambda model: model.logits(model.hidden(batch)))(stack_layers(ours))
  np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def test_greedy_steps_equal_transformers_generate(pair):
  theirs, ours, _ = pair
  batch = _batch(9)
  tokens = torch.tensor(batch["encoder_input_tokens"], dtype=torch.long)
  wanted = theirs.generate(
    input_ids=tokens,
    attention_mask=(tokens > 0).long(),
    max_new_tokens=7,
    min_new_tokens=7,
    do_sample=False,
    num_beams=1,
    decoder_start_token_id=0,
    use_cache=False,  # transformers 5.23 sizes its cache by the encoder's depth
  ).numpy()[:, 1:]
  step = jax.jit(lambda model, tokens, cache: model.decode_step(tokens, cache))
  logits, cache = ours.prefill(batch, max_length=7)
  for position in range(7):
    no_end = np.array(logits)
    no_end[:, 1] = -np.inf  # min_new_tokens forbids the end
    chosen = np.argmax(no_end, -1).astype(np.int32)
    np.testing.assert_array_equal(chosen, wanted[:, position])
    logits, cache = step(ours, chosen, cache)
