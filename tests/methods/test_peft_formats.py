"""PEFT's adapters where a method file may be given; tests/parity shows that PEFT computes the same."""

import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from promot_jax import errors, paths
from promot_jax.checkpoints.peft import prefix_tuning, prompt_tuning, reader
from promot_jax.conversion import formats
from promot_jax.methods import files
from promot_jax.methods.adapter import Adapter
from promot_jax.methods.combined import Combined
from promot_jax.methods.formats import Context, Trained
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.lora import LoRA
from promot_jax.methods.prefix import PrefixTuning
from promot_jax.methods.prompt import FromArray, PromptNetwork, SoftPrompt
from promot_jax.models.scanning import stack_layers
from promot_jax.networks import trained_methods
from tiny_models import config, tiny

BATCH = {
  "encoder_input_tokens": np.asarray([[4, 9, 6], [8, 3, 0]], np.int32),
  "decoder_input_tokens": np.asarray([[0, 5], [0, 7]], np.int32),
}
CONFIG = config("t5", encoder_layers=2, decoder_layers=1)


def model():
  return tiny("t5", encoder_layers=2, decoder_layers=1)


def with_prompt(folder):
  values = np.random.default_rng(0).normal(size=(4, CONFIG.width)).astype(np.float32)
  prompt_tuning.write_prompt_adapter(folder, values, CONFIG, base_model="base")
  return SoftPrompt(length=4, initializer=FromArray(array=values)).attach(model(), nnx.Rngs(1))


def with_prefix(folder):
  method = PrefixTuning(length=3, sites=["decoder"], positions="peft")
  attached = method.attach(model(), nnx.Rngs(1))
  leaves = paths.named_leaves(attached)
  own = {name: leaves[name] for name in paths.match(method.parameters, leaves)}
  prefix_tuning.write_prefix_adapter(folder, own, CONFIG, base_model="base", counted=True)
  return attached


def _with(method, folder):
  attached = method.attach(model(), nnx.Rngs(1))
  leaves = paths.named_leaves(attached)
  own = {name: leaves[name] + 0.3 for name in paths.match(method.parameters, leaves)}
  attached = paths.replace_leaves(attached, {**leaves, **own})
  context = Context(config=CONFIG, base_model="base")
  files.write(folder, Trained.of(attached, method), "peft", context, where="run")
  return attached


def with_lora(folder):
  return _with(LoRA(rank=2, alpha=5), folder)


def with_ia3(folder):
  return _with(IA3(), folder)


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("write", [with_prompt, with_prefix, with_lora, with_ia3])
def test_an_adapter_is_attached_as_the_method_it_came_from(tmp_path, write, scanned):
  expected = write(tmp_path / "adapter")
  place, file = files.open_method(tmp_path / "adapter", CONFIG)
  assert place == tmp_path / "adapter" / "adapter_model.safetensors"
  assert file.notes == {"base_model": "base"}
  backbone = stack_layers(model()) if scanned else model()
  found, _ = trained_methods.attached(backbone, file, where=str(place))
  np.testing.assert_allclose(found.hidden(BATCH), expected.hidden(BATCH), atol=2e-6)


def test_method_files_are_opened_as_they_are(tmp_path):
  method = SoftPrompt(length=4)
  path = trained_methods.export(tmp_path / "a.npz", method.attach(model(), nnx.Rngs(1)), method)
  place, file = files.open_method(path, CONFIG)
  assert place == path and file.backbone is not None


@pytest.mark.parametrize("write", [with_prompt, with_prefix, with_lora, with_ia3])
def test_an_adapter_of_another_model_is_refused(tmp_path, write):
  write(tmp_path / "adapter")
  wider = tiny("t5", width=10, heads=4)
  with pytest.raises(errors.ConfigError) as refused:
    place, file = files.open_method(tmp_path / "adapter", wider.config)
    trained_methods.attached(wider, file, where=str(place))
  assert str(tmp_path / "adapter") in str(refused.value)
  with pytest.raises(errors.ConfigError, match="no method file"):
    files.open_method(tmp_path / "absent", CONFIG)


def test_a_folder_that_is_neither_says_what_either_would_have(tmp_path):
  with pytest.raises(errors.ConfigError, match=r"neither a method file nor a PEFT adapter"):
    files.open_method(tmp_path, CONFIG)


def converted(path, method, to):
  """The model with a method, and its method written as `promot convert` writes it."""
  attached = method.attach(model(), nnx.Rngs(1))
  trained = Trained.of(attached, method)
  weights = formats.Weights(
    leaves=paths.named_leaves(attached), config=CONFIG, where="run", trained=trained
  )
  return attached, formats.write(weights, path, formats.Target(to=to, base_model="base"))


def test_the_prompt_that_a_network_computes_is_written(tmp_path):
  method = SoftPrompt(length=4, network=PromptNetwork(hidden=5, hidden_layers=2))
  attached, path = converted(tmp_path / "adapter", method, "peft")
  assert reader.open_adapter(path).config["peft_type"] == "P_TUNING"
  place, file = files.open_method(path, CONFIG)
  found, _ = trained_methods.attached(model(), file, where=str(place))
  np.testing.assert_allclose(found.hidden(BATCH), attached.hidden(BATCH), atol=2e-6)
  _, path = converted(tmp_path / "prompt.npy", method, "prompt")
  np.testing.assert_array_equal(np.load(path), found.encoder.prompt.prompt[...])


@pytest.mark.parametrize(
  "method", [Adapter(bottleneck=2), Combined(methods=[SoftPrompt(length=2), LoRA(rank=2)])]
)
def test_a_method_that_peft_has_not_is_not_written_in_part(tmp_path, method):
  words = f"method {type(method).__name__}, for which PEFT has no adapter; --to=method"
  with pytest.raises(errors.ConfigError, match=words):
    converted(tmp_path / "adapter", method, "peft")
  assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize("write", [with_prompt, with_prefix, with_lora, with_ia3])
def test_an_adapter_with_nan_is_refused(tmp_path, write):
  write(tmp_path / "adapter")
  file = tmp_path / "adapter" / "adapter_model.safetensors"
  arrays = load_file(file)
  last = max(arrays)
  arrays[last] = np.full_like(arrays[last], np.nan)
  save_file(arrays, file)
  with pytest.raises(errors.DamagedCheckpoint, match="NaN or infinite; use another copy"):
    files.open_method(tmp_path / "adapter", CONFIG)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3)])
def test_factors_that_are_no_vector_are_refused(tmp_path, shape):
  with_ia3(tmp_path / "adapter")
  file = tmp_path / "adapter" / "adapter_model.safetensors"
  arrays = load_file(file)
  arrays[max(arrays)] = np.ones(shape, np.float32)
  save_file(arrays, file)
  with pytest.raises(errors.DamagedCheckpoint, match="no vector of factors"):
    files.open_method(tmp_path / "adapter", CONFIG)
