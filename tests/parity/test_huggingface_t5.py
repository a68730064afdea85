"""T5 directories that transformers wrote are read, and those that we write are read by transformers.

Random weights, transformers on torch (CPU).  Logits of the two networks agree to 2e-5 of the largest
logit (see test_t5_transformers.py); the same weights in the same network must agree bit by bit.
"""

import json

import jax
import numpy as np
import pytest
from flax import nnx

import tiny_transformers
from promot_jax import paths
from promot_jax.checkpoints import huggingface, restore
from promot_jax.models import T5

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
safetensors_numpy = pytest.importorskip("safetensors.numpy", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

SHAPE = {"vocab_size": 50, "num_decoder_layers": 3, "dropout_rate": 0.0}
VARIANTS = {
  "t5_1_0": ("t5", {"feed_forward_proj": "relu", "scale_decoder_outputs": True}),
  "t5_1_1": ("t5", {"feed_forward_proj": "gated-gelu", "scale_decoder_outputs": False}),
  "mt5": ("mt5", {"feed_forward_proj": "gated-gelu"}),
  "umt5": ("umt5", {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
# What transformers 4 writes in place of `scale_decoder_outputs`.
OLD_STYLE = {"t5_1_0": True, "t5_1_1": False, "mt5": False, "umt5": False}
BATCH = {
  "encoder_input_tokens": np.array([[5, 9, 33, 7, 1], [8, 41, 1, 0, 0]], np.int32),
  "decoder_input_tokens": np.array([[0, 12, 6], [0, 30, 44]], np.int32),
}


@pytest.fixture(scope="module", params=sorted(VARIANTS))
def saved(request, tmp_path_factory):
  """(name of the variant, transformers' model, folder that it was saved to)."""
  kind, settings = VARIANTS[request.param]
  torch.manual_seed(0)
  model = tiny_transformers.build(kind, **SHAPE, **settings).eval()
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if "layer_norm" in name or "relative_attention_bias" in name:
        weight.copy_(torch.randn_like(weight) * 0.5 + 1)
      elif "shared" not in name:
        weight.copy_(torch.randn_like(weight) * 0.2)
    if request.param != "t5_1_0":
      model.lm_head.weight = torch.nn.Parameter(torch.randn(50, 24) * 0.2)
  folder = tmp_path_factory.mktemp(request.param)
  model.save_pretrained(folder)
  return request.param, model, folder


def their_logits(model) -> np.ndarray:
  tokens = torch.tensor(BATCH["encoder_input_tokens"], dtype=torch.long)
  with torch.no_grad():
    return model(
      input_ids=tokens,
      attention_mask=(tokens > 0).long(),
      decoder_input_ids=torch.tensor(BATCH["decoder_input_tokens"], dtype=torch.long),
    ).logits.numpy()


def our_model(folder, **changes) -> T5:
  config = huggingface.config(str(folder), **changes)
  abstract = nnx.eval_shape(lambda: T5(config, nnx.Rngs(0)))
  return restore.restore_into(abstract, huggingface.open_hf(folder, config), finite=True)


def our_logits(model) -> np.ndarray:
  return np.asarray(jax.jit(lambda model: model.logits(model.hidden(BATCH)))(model))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
  np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


def test_a_directory_of_transformers_5_gives_equal_logits(saved):
  _, theirs, folder = saved
  assert_close(our_logits(our_model(folder)), their_logits(theirs))


def test_a_config_of_transformers_4_gives_equal_logits(saved, tmp_path):
  variant, theirs, folder = saved
  content = json.loads((folder / "config.json").read_text())
  content.pop("scale_decoder_outputs", None)
  content["tie_word_embeddings"] = OLD_STYLE[variant]
  content["torch_dtype"] = content.pop("dtype")
  (tmp_path / "config.json").write_text(json.dumps(content))
  (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
  assert_close(our_logits(our_model(tmp_path)), their_logits(theirs))


def test_a_sharded_directory_gives_the_same_parameters(saved, tmp_path):
  _, theirs, folder = saved
  theirs.save_pretrained(tmp_path, max_shard_size="20KB")
  assert len(list(tmp_path.glob("*.safetensors"))) > 2
  expected, found = huggingface.open_hf(folder), huggingface.open_hf(tmp_path)
  assert expected.keys() == found.keys()
  for name, array in expected.items():
    np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(array))


@pytest.mark.parametrize("file_bytes", [10**9, 20_000])
def test_import_export_import_is_bitwise_and_transformers_loads_the_export(
  saved, tmp_path, file_bytes
):
  _, theirs, folder = saved
  model = our_model(folder)
  out = huggingface.write_hf(
    tmp_path / "out", paths.named_leaves(model), model.config, file_bytes=file_bytes
  )
  again = our_model(out)
  assert again.config == model.config
  expected, found = paths.named_leaves(model), paths.named_leaves(again)
  for name, array in expected.items():
    np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(array))
  stored = {
    name: array
    for file in out.glob("*.safetensors")
    for name, array in safetensors_numpy.load_file(file).items()
  }
  original = safetensors_numpy.load_file(folder / "model.safetensors")
  assert stored.keys() == original.keys()
  for name, array in original.items():
    np.testing.assert_array_equal(stored[name], array)
  loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(out).eval()
  assert loaded.generation_config.decoder_start_token_id == 0
  np.testing.assert_array_equal(their_logits(loaded), their_logits(theirs))


def test_half_precision_files_are_read_into_float32_and_written(saved, tmp_path):
  _, theirs, folder = saved
  for dtype in (torch.bfloat16, torch.float16):
    kind = type(theirs)
    half = kind.from_pretrained(folder, dtype=dtype)
    place = tmp_path / str(dtype).split(".")[1]
    half.save_pretrained(place)
    leaves = paths.named_leaves(our_model(place))
    expected = half.shared.weight.detach().float().numpy()
    np.testing.assert_array_equal(leaves["token_embedder/embedding"], expected)
    config = huggingface.config(str(folder))
    out = huggingface.write_hf(
      tmp_path / f"out_{place.name}", huggingface.open_hf(folder), config, dtype=place.name
    )
    written = safetensors_torch(out)
    for name, weight in half.state_dict().items():
      if name in written and not name.endswith("wo.weight"):  # kept in float32 by transformers
        assert written[name].dtype == dtype
        assert torch.equal(written[name], weight), name


def safetensors_torch(folder):
  from safetensors.torch import load_file

  return load_file(folder / "model.safetensors")


def test_a_padded_vocabulary_predicts_the_same_tokens_and_is_trimmed_again(saved, tmp_path):
  _, theirs, folder = saved
  model = our_model(folder, vocab_size=64)
  logits = our_logits(model)
  assert_close(logits[..., :50], their_logits(theirs))
  assert (logits[..., 50:].max(-1) < logits[..., :50].max(-1)).all()
  out = huggingface.write_hf(
    tmp_path / "out", paths.named_leaves(model), model.config, vocabulary=50
  )
  loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(out).eval()
  np.testing.assert_array_equal(their_logits(loaded), their_logits(theirs))


def test_a_scaled_umt5_is_read_and_written(tmp_path):
  # ties and scales unless config.json says otherwise
  theirs = tiny_transformers.build("umt5", **SHAPE).eval()
  theirs.save_pretrained(tmp_path / "theirs")
  model = our_model(tmp_path / "theirs")
  assert model.config.tied_logits and model.config.relative_bias == "per_layer"
  assert_close(our_logits(model), their_logits(theirs))
  out = huggingface.write_hf(tmp_path / "out", paths.named_leaves(model), model.config)
  loaded = transformers.AutoModelForSeq2SeqLM.from_pretrained(out).eval()
  assert type(loaded) is type(theirs)
  np.testing.assert_array_equal(their_logits(loaded), their_logits(theirs))
