"""PEFT's prefix and P-tuning adapters against ours: either side loads what the other wrote.

Models and tolerances are those of peft_pairs.py: a slot of another layer or a shifted position changes
logits by a thousand times as much.
"""

import numpy as np
import pytest
from flax import nnx

import tiny_transformers
from promot_jax import errors, paths
from promot_jax.checkpoints import method_files
from promot_jax.checkpoints.peft import prefix_tuning, prompt_tuning
from promot_jax.methods.prefix import FromArrays, FromFile, NormalPrefix, PrefixTuning
from promot_jax.methods.prompt import FromArray, PromptNetwork, SoftPrompt
from promot_jax.methods.prompt import FromFile as PromptFromFile

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
peft = pytest.importorskip("peft", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

LENGTH = 3
DEAD = {"t5_of_4_layers": 4, "t5_of_3_layers": 0, "bart": 2, "gpt2": 0, "llama": 0}
"""Slots that PEFT never uses."""
SIZES = {
  "t5_of_4_layers": {"token_dim": 30, "num_attention_heads": 3},
  "t5_of_3_layers": {"token_dim": 30, "num_attention_heads": 3},
  "llama": {"token_dim": 20, "num_attention_heads": 2},
}


def peft_method(**fields):
  return PrefixTuning(length=LENGTH, sites=["decoder"], positions="peft", **fields)


def prefix_leaves(model):
  leaves = paths.named_leaves(model)
  return {name: leaves[name] for name in paths.match(PrefixTuning.parameters, leaves)}


@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("kind", DEAD)
def test_we_load_a_prefix_of_peft_and_give_its_logits(pairs, peft_pairs, tmp_path, kind, projected):
  if projected and kind != "gpt2":
    pytest.skip("what PEFT saves does not depend on the model here")
  settings = peft.PrefixTuningConfig(
    task_type=peft_pairs.task(kind),
    num_virtual_tokens=LENGTH,
    prefix_projection=projected,
    encoder_hidden_size=7,
    # PEFT takes the width of the model, which is not that of all heads together here.
    **(SIZES.get(kind) or {}),
  )
  torch.manual_seed(4)
  theirs = peft.get_peft_model(pairs.theirs(kind), settings).eval()
  theirs.save_pretrained(tmp_path)
  ours = pairs.ours(kind)
  adapter = prefix_tuning.read_prefix_adapter(tmp_path, ours.config)
  assert adapter.unused == DEAD[kind]
  arrays = {"decoder": (adapter.keys, adapter.values)}
  ours = peft_method(initializer=FromArrays(arrays=arrays)).attach(ours, nnx.Rngs(0))
  peft_pairs.assert_close(peft_pairs.our_logits(ours), peft_pairs.their_logits(theirs))


@pytest.mark.parametrize("kind", ["t5_of_3_layers", "gpt2", "llama"])
def test_peft_loads_our_prefix_and_gives_our_logits(pairs, peft_pairs, tmp_path, kind):
  ours = pairs.ours(kind)
  ours = peft_method(initializer=NormalPrefix(std=1.0)).attach(ours, nnx.Rngs(5))
  adapter = prefix_tuning.write_prefix_adapter(
    tmp_path / "adapter",
    prefix_leaves(ours),
    ours.config,
    base_model=str(pairs.folder(kind)),
    counted=True,
  )
  theirs = peft.PeftModel.from_pretrained(pairs.theirs(kind), adapter).eval()
  peft_pairs.assert_close(peft_pairs.their_logits(theirs), peft_pairs.our_logits(ours))
  again = peft_method(initializer=FromFile(path=adapter)).attach(pairs.ours(kind), nnx.Rngs(0))
  for name, leaf in prefix_leaves(ours).items():
    np.testing.assert_array_equal(prefix_leaves(again)[name], leaf)


def test_what_peft_cannot_compute_is_not_written(pairs, peft_pairs, tmp_path):
  kind = "t5_of_3_layers"
  model = pairs.ours(kind)

  def refused(method, counted):
    leaves = method_files.unrolled(prefix_leaves(method.attach(model, nnx.Rngs(0))))
    with pytest.raises(errors.ConfigError) as caught:
      prefix_tuning.write_prefix_adapter(
        tmp_path / "a", leaves, model.config, base_model="x", counted=counted
      )
    return str(caught.value)

  assert "decoder/encoder_decoder_attention, encoder/attention" in refused(PrefixTuning(), True)
  assert "takes no positions" in refused(PrefixTuning(sites=["decoder"]), False)
  assert "bank of 2 tasks" in refused(peft_method(tasks=2), True)
  model = pairs.ours("bart")
  assert "same keys in layers 0 and 1" in refused(peft_method(), True)


def test_a_prefix_of_peft_with_shared_layers_is_written_again(pairs, peft_pairs, tmp_path):
  settings = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=LENGTH)
  theirs = peft.get_peft_model(pairs.theirs("bart"), settings)
  theirs.save_pretrained(tmp_path / "theirs")
  start = FromFile(path=tmp_path / "theirs")
  ours = peft_method(initializer=start).attach(pairs.ours("bart"), nnx.Rngs(0))
  again = prefix_tuning.write_prefix_adapter(
    tmp_path / "ours", prefix_leaves(ours), ours.config, base_model="x", counted=True
  )
  found, wanted = (
    prefix_tuning.read_prefix_adapter(path, ours.config) for path in (again, tmp_path / "theirs")
  )
  np.testing.assert_array_equal(found.keys, wanted.keys)
  np.testing.assert_array_equal(found.values, wanted.values)


@pytest.mark.parametrize("kind", ["t5_of_3_layers", "gpt2"])
def test_p_tuning_goes_both_ways(pairs, peft_pairs, tmp_path, kind):
  settings = peft.PromptEncoderConfig(
    task_type=peft_pairs.task(kind),
    num_virtual_tokens=LENGTH,
    encoder_hidden_size=7,
  )
  torch.manual_seed(4)
  theirs = peft.get_peft_model(pairs.theirs(kind), settings).eval()
  theirs.save_pretrained(tmp_path / "theirs")
  backbone = pairs.ours(kind)
  start = PromptFromFile(path=tmp_path / "theirs")
  ours = SoftPrompt(length=LENGTH, initializer=start).attach(backbone, nnx.Rngs(0))
  peft_pairs.assert_close(
    peft_pairs.our_logits(ours), peft_pairs.their_logits(theirs, inserted=LENGTH)
  )

  network = PromptNetwork(hidden=7, hidden_layers=2, activation="relu")
  rows = np.random.default_rng(5).normal(size=(LENGTH, tiny_transformers.WIDTH)).astype(np.float32)
  method = SoftPrompt(length=LENGTH, initializer=FromArray(array=rows), network=network)
  ours = method.fold(method.attach(backbone, nnx.Rngs(3)))
  (name,) = paths.match(SoftPrompt.parameters, paths.named_leaves(ours))
  adapter = prompt_tuning.write_prompt_adapter(
    tmp_path / "ours",
    paths.named_leaves(ours)[name],
    backbone.config,
    base_model=str(pairs.folder(kind)),
    kind="P_TUNING",
  )
  theirs = peft.PeftModel.from_pretrained(pairs.theirs(kind), adapter).eval()
  peft_pairs.assert_close(
    peft_pairs.their_logits(theirs, inserted=LENGTH), peft_pairs.our_logits(ours)
  )
