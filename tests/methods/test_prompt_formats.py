"""One prompt in every kind of file that can hold it, and prompts that prompt-tuning on T5X wrote."""

import numpy as np
import pytest
from flax import nnx

from promot_jax import errors
from promot_jax.checkpoints import prompt_files, t5x_writer
from promot_jax.checkpoints.peft import prompt_tuning
from promot_jax.checkpoints.store import Store
from promot_jax.methods import files
from promot_jax.methods.formats import Context, Trained
from promot_jax.methods.prompt import FromFile, SoftPrompt
from tiny_models import config

LENGTH, WIDTH = 5, 6
CONFIG = config("t5", width=WIDTH)


def read_prompt(path):
  found = files.stored(path, SoftPrompt.formats, Context())
  return prompt_files.prompt_of(found.leaves, where=str(path))


@pytest.fixture
def prompt():
  return np.random.default_rng(0).normal(size=(LENGTH, WIDTH)).astype(np.float32)


def as_numpy(folder, prompt):
  return prompt_files.write_numpy(folder / prompt_files.T5X_LEAF, prompt)


def as_numpy_folder(folder, prompt):
  return as_numpy(folder / "numpy_checkpoints" / "checkpoint_7", prompt).parent


def as_t5x(layout, part=""):
  def write(folder, prompt):
    leaves = {"encoder/prompt/prompt": prompt}
    return t5x_writer.write_t5x(folder, leaves, step=7, layout=layout) / part

  return write


def as_step(folder, prompt):
  store = Store(folder)
  store.save(3, {"trainable/encoder/prompt/prompt": prompt, "opt_state/0/m": prompt + 1}, {})
  store.close()
  return folder / "checkpoint_3"


def as_adapter(folder, prompt):
  return prompt_tuning.write_prompt_adapter(folder / "new", prompt, CONFIG, base_model="base")


FORMS = {
  "numpy": as_numpy,
  "numpy folder": as_numpy_folder,
  "T5X legacy": as_t5x("legacy"),
  "T5X Orbax": as_t5x("orbax"),
  "T5X leaf": as_t5x("legacy", "target.encoder.prompt.prompt.prompt"),
  "our step": as_step,
  "PEFT": as_adapter,
}


class Backbone(nnx.Module):
  """The least that a prompt can be attached to."""

  def __init__(self):
    self.token_embedder = nnx.Module()
    self.token_embedder.embedding = nnx.Param(np.zeros((11, WIDTH), np.float32))
    self.encoder = nnx.Module()
    self.encoder.prompt = nnx.data(None)

  @property
  def reader(self):
    return self.encoder


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_exactly_and_starts_a_prompt(tmp_path, prompt, form):
  path = FORMS[form](tmp_path, prompt)
  found = read_prompt(path)
  assert found.dtype == np.float32
  np.testing.assert_array_equal(found, prompt)
  method = SoftPrompt(length=LENGTH, initializer=FromFile(path=str(path)))
  model = method.attach(Backbone(), nnx.Rngs(0))
  np.testing.assert_array_equal(model.encoder.prompt.prompt[...], prompt)


@pytest.mark.parametrize("form", FORMS)
def test_a_prompt_of_another_model_is_refused_in_one_sentence(tmp_path, prompt, form):
  path = FORMS[form](tmp_path, prompt)
  longer = SoftPrompt(length=LENGTH + 1, initializer=FromFile(path=path))
  with pytest.raises(errors.ConfigError, match=r"\[5, 6\].*must be \[6, 6\]"):
    longer.attach(Backbone(), nnx.Rngs(0))


def test_prompts_that_prompt_tuning_on_t5x_wrote_are_read(shared_data):
  folder = shared_data / "t5x_checkpoint" / "prompt_t5_1_1_tiny"
  with np.load(folder / "expected_state.npz") as file:
    expected = file["target/encoder/prompt/prompt/prompt"]
  step = folder / "legacy" / "checkpoint_1234567"
  saved = folder / "legacy" / "numpy_checkpoints" / "checkpoint_1234567"
  leaf = step / "target.encoder.prompt.prompt.prompt"
  for path in (folder / "legacy", step, leaf, saved, saved / prompt_files.T5X_LEAF):
    np.testing.assert_array_equal(read_prompt(path), expected)


def test_a_written_prompt_file_is_the_one_that_prompt_tuning_on_t5x_writes(shared_data, tmp_path):
  folder = shared_data / "t5x_checkpoint" / "prompt_t5_1_1_tiny" / "legacy" / "numpy_checkpoints"
  theirs = folder / "checkpoint_1234567" / prompt_files.T5X_LEAF
  ours = prompt_files.write_numpy(tmp_path / "prompt", np.load(theirs))
  assert ours.read_bytes() == theirs.read_bytes()
  assert [path.name for path in tmp_path.iterdir()] == ["prompt"]
  with pytest.raises(errors.ConfigError, match="not overwritten"):
    prompt_files.write_numpy(ours, np.zeros((1, 2)))


def test_checkpoints_without_a_prompt_and_banks_say_so(tmp_path, prompt):
  t5x_writer.write_t5x(tmp_path, {"encoder/encoder_norm/scale": prompt[0]}, step=1)
  with pytest.raises(errors.ConfigError, match="0 soft prompts among its 1"):
    read_prompt(tmp_path)
  bank = np.stack([prompt, prompt + 1])
  name = "encoder/prompt/prompt"
  trained = Trained(method=SoftPrompt(length=LENGTH, tasks=2), leaves={name: bank})
  np.testing.assert_array_equal(trained.of_task(1).leaves[name], prompt + 1)
  alone = Trained(method=SoftPrompt(length=LENGTH), leaves={name: prompt})
  np.testing.assert_array_equal(alone.of_task(None).leaves[name], prompt)
  for task in (None, 2):
    with pytest.raises(errors.ConfigError, match="values of 2 tasks"):
      trained.of_task(task)
