"""Our BART against transformers' BART, with random weights that transformers drew and saved.

Tolerances are those of test_t5_transformers.py and for its reasons.  Beams are compared token by
token: the models have no ties, and both sides follow transformers' rules (`TransformersBeam`).
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tiny_transformers
from promot_jax import paths
from promot_jax.checkpoints.huggingface import importer, writer
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Greedy, TransformersBeam
from promot_jax.models import stack_layers
from promot_jax.models.bart import Bart
from promot_jax.training import losses

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

PAD, BOS, EOS = 1, 0, 2
VOCABULARY = 33
SHAPE = {
  "vocab_size": VOCABULARY,
  "decoder_layers": 3,
  "max_position_embeddings": 20,
  "dropout": 0.0,
}
VARIANTS = {
  "published": {},
  "scaled": {"scale_embedding": True, "activation_function": "relu"},
}


def _make_pair(variant, folder):
  torch.manual_seed(0)
  model = tiny_transformers.build("bart", **SHAPE, **VARIANTS[variant]).eval()
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if weight.ndim == 1:  # 1 and 0 would hide mistakes
        center = 1.0 if name.endswith("norm.weight") or "embedding.weight" in name else 0.0
        weight.copy_(torch.randn_like(weight) * 0.3 + center)
      else:
        weight.copy_(torch.randn_like(weight) * (0.5 if "shared" in name else 0.25))
    model.final_logits_bias.copy_(torch.randn(1, VOCABULARY))
    model.final_logits_bias[0, EOS] += 6.0  # outputs that end before the greatest length
  model.generation_config.forced_bos_token_id = BOS  # transformers 5 keeps it here only
  model.save_pretrained(folder)
  config = importer.config(str(folder))
  leaves = {name: np.asarray(leaf) for name, leaf in importer.open_hf(folder, config).items()}
  return model, paths.replace_leaves(Bart(config, nnx.Rngs(0)), leaves), folder


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def pair(request, tmp_path_factory):
  """(their model, our model with the weights of their files, the folder)."""
  return _make_pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
  """`pair` of the variant that the published models are, for what depends on no variant."""
  return _make_pair("published", tmp_path_factory.mktemp("published"))


def _batch():
  random = np.random.default_rng(7)
  source = random.integers(3, VOCABULARY, (3, 9)).astype(np.int32)
  source[1, 5:] = PAD  # padding at the end
  source[2, 1] = PAD  # and, unusual but legal, inside
  source[:, 3] = BOS  # id 0 is a token like any other
  targets = random.integers(3, VOCABULARY, (3, 6)).astype(np.int32)
  targets[:, 0] = BOS
  targets[0, 4:] = PAD
  shifted = np.concatenate([np.full((3, 1), EOS, np.int32), targets[:, :-1]], 1)
  return {
    "encoder_input_tokens": source,
    "encoder_input_mask": source != PAD,  # without it only the pad ids at the end are padding
    "decoder_input_tokens": shifted,
    "decoder_target_tokens": targets,
    "decoder_loss_weights": (targets != PAD).astype(np.float32),
  }


def _their_run(model, batch):
  tokens = torch.tensor(batch["encoder_input_tokens"], dtype=torch.long)
  model.zero_grad()
  logits = model(
    input_ids=tokens,
    attention_mask=(tokens != PAD).long(),
    decoder_input_ids=torch.tensor(batch["decoder_input_tokens"], dtype=torch.long),
  ).logits
  targets = torch.tensor(batch["decoder_target_tokens"], dtype=torch.long)
  loss = torch.nn.functional.cross_entropy(
    logits.flatten(0, 1), targets.flatten(), ignore_index=PAD, reduction="sum"
  )
  loss.backward()
  gradients = {name: weight.grad.numpy() for name, weight in model.named_parameters()}
  return logits.detach().numpy(), loss.item(), gradients


@jax.jit
def _our_run(model, batch):
  graphdef, trained, buffers = nnx.split(model, nnx.Param, ...)

  def loss(trained):
    model = nnx.merge(graphdef, trained, buffers)
    hidden = model.hidden(batch)
    terms = losses.cross_entropy(
      model.readout,
      hidden,
      batch["decoder_target_tokens"],
      batch["decoder_loss_weights"],
      chunk=10,
    )
    return terms.cross_entropy, model.logits(hidden)

  (loss, logits), gradients = jax.value_and_grad(loss, has_aux=True)(trained)
  return logits, loss, gradients


def test_logits_loss_and_all_gradients_equal_transformers(pair):
  theirs, ours, _ = pair
  expected_logits, expected_loss, expected_gradients = _their_run(theirs, _batch())
  logits, loss, gradients = _our_run(ours, _batch())
  largest = np.abs(expected_logits).max()
  np.testing.assert_allclose(logits, expected_logits, atol=2e-5 * largest, rtol=0)
  np.testing.assert_allclose(loss, expected_loss, rtol=2e-5)
  gradients = paths.named_leaves(gradients)
  assert len(gradients) == len(expected_gradients)
  for name, gradient in gradients.items():
    expected = expected_gradients[_their_name(name)]
    expected = expected.T if name.endswith("kernel") else expected
    if name.endswith("key/bias"):  # softmax does not see it: what is left of it is rounding
      np.testing.assert_allclose(gradient, 0, atol=1e-4)
      continue
    largest = np.abs(expected).max()
    assert largest > 0, name
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * largest, rtol=0, err_msg=name)


def _their_name(name):
  """The parameter's name in transformers, written out from its module structure."""
  if name == "token_embedder/embedding":
    return "model.shared.weight"
  leaf = "weight" if name.endswith(("kernel", "scale", "embedding")) else "bias"
  parts = name.split("/")[:-1]
  side = parts[0]
  if parts[1] == "position_embedder":
    return f"model.{side}.embed_positions.weight"
  if parts[1] == "embedding_layer_norm":
    return f"model.{side}.layernorm_embedding.{leaf}"
  module = {
    "attention": "self_attn",
    "self_attention": "self_attn",
    "encoder_decoder_attention": "encoder_attn",
    "post_attention_layer_norm": "self_attn_layer_norm",
    "post_self_attention_layer_norm": "self_attn_layer_norm",
    "post_cross_attention_layer_norm": "encoder_attn_layer_norm",
    "post_mlp_layer_norm": "final_layer_norm",
    "mlp": "",
  }[parts[3]]
  inner = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}
  inner |= {"wi": "fc1", "wo": "fc2"}
  names = ["model", side, "layers", parts[2], module, *[inner[part] for part in parts[4:]], leaf]
  return ".".join(name for name in names if name)


def test_scanned_layers_equal_transformers(published):
  theirs, ours, _ = published
  expected, _, _ = _their_run(theirs, _batch())
  logits = jax.jit(lambda model: model.logits(model.hidden(_batch())))(stack_layers(ours))
  np.testing.assert_allclose(logits, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def _generated(theirs, max_length, **options):
  tokens = torch.tensor(_sources(), dtype=torch.long)
  with torch.no_grad():
    sequences = theirs.generate(
      input_ids=tokens,
      attention_mask=(tokens != PAD).long(),
      max_new_tokens=max_length,
      do_sample=False,
      use_cache=False,  # transformers 5.23 sizes its cache by the encoder's depth
      **options,
    ).numpy()[:, 1:]
  return np.pad(sequences, ((0, 0), (0, max_length - sequences.shape[1])), constant_values=PAD)


def _sources():
  tokens = np.random.default_rng(3).integers(3, VOCABULARY, (12, 7)).astype(np.int32)
  tokens[1, 4:] = PAD
  tokens[3, 2:] = PAD
  return tokens


@pytest.mark.parametrize("max_length", [6, 14])
def test_greedy_outputs_are_those_of_generate(published, max_length):
  theirs, ours, _ = published
  expected = _generated(theirs, max_length, num_beams=1)
  result = generate(
    ours, {"encoder_input_tokens": _sources()}, strategy=Greedy(), max_length=max_length
  )
  np.testing.assert_array_equal(result.tokens[:, 0], expected)
  assert (expected[:, 0] == BOS).all()
  assert (expected[:, -1] == EOS).any() and (expected[:, -1] == PAD).any()


@pytest.mark.parametrize(
  ("length_penalty", "early_stopping", "max_length"),
  [(1.0, False, 14), (2.0, True, 9), (-0.5, "never", 9)],
)
def test_beam_4_outputs_are_those_of_generate(
  published, length_penalty, early_stopping, max_length
):
  theirs, ours, _ = published
  options = {"length_penalty": length_penalty, "early_stopping": early_stopping}
  expected = _generated(theirs, max_length, num_beams=4, **options)
  result = generate(
    ours,
    {"encoder_input_tokens": _sources()},
    strategy=TransformersBeam(width=4, **options),
    max_length=max_length,
  )
  np.testing.assert_array_equal(result.tokens[:, 0], expected)
  assert len({len(row[row != PAD]) for row in expected}) > 1, "outputs of different lengths"


def test_what_we_write_transformers_reads_with_equal_logits(published, tmp_path):
  theirs, ours, folder = published
  written = writer.write_hf(tmp_path / "again", paths.named_leaves(ours), ours.config)
  before = safetensors_numpy.load_file(folder / "model.safetensors")
  after = safetensors_numpy.load_file(written / "model.safetensors")
  assert before.keys() == after.keys()
  for name, array in before.items():
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  loaded = transformers.BartForConditionalGeneration.from_pretrained(written).eval()
  assert loaded.generation_config.forced_bos_token_id == BOS
  expected, _, _ = _their_run(theirs, _batch())
  np.testing.assert_array_equal(_their_run(loaded, _batch())[0], expected)
  assert importer.config(str(written)) == ours.config


def test_files_of_the_bare_network_have_no_bias_of_the_logits(published, tmp_path):
  theirs, ours, _ = published
  theirs.model.save_pretrained(tmp_path)
  leaves = importer.open_hf(tmp_path)
  expected = paths.named_leaves(ours) | {"final_logits_bias": jnp.zeros(VOCABULARY)}
  assert leaves.keys() == expected.keys()
  for name, leaf in leaves.items():
    np.testing.assert_array_equal(np.asarray(leaf), expected[name], err_msg=name)
