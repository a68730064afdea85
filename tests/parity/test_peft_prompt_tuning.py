"""PEFT's prompt adapters against ours: either side loads what the other wrote and gives its logits.

Models and tolerances are those of peft_pairs.py: a prompt at the wrong place, of the wrong rows or with
other positions changes logits by 1e-2 or more of the largest, which the last test shows.
"""

import numpy as np
import pytest
from flax import nnx

from promot_jax.checkpoints.peft import prompt_tuning
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Greedy
from promot_jax.methods.prompt import FromArray, FromFile, SoftPrompt

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
peft = pytest.importorskip("peft", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

LENGTH, WIDTH = 4, 24
KINDS = ("t5", "mt5", "umt5", "bart", "gpt2", "llama")


def prompt_values():
  return (np.random.default_rng(5).normal(size=(LENGTH, WIDTH)) * 0.5).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_peft_loads_our_adapter_and_gives_our_logits(pairs, peft_pairs, tmp_path, kind):
  ours = pairs.ours(kind)
  values = prompt_values()
  adapter = prompt_tuning.write_prompt_adapter(
    tmp_path / "adapter", values, ours.config, base_model=str(pairs.folder(kind))
  )
  ours = SoftPrompt(length=LENGTH, initializer=FromArray(array=values)).attach(ours, nnx.Rngs(0))
  base = peft.PeftConfig.from_pretrained(adapter).base_model_name_or_path
  assert base == str(pairs.folder(kind))
  theirs = peft.PeftModel.from_pretrained(pairs.theirs(kind), adapter).eval()
  peft_pairs.assert_close(
    peft_pairs.their_logits(theirs, inserted=LENGTH), peft_pairs.our_logits(ours)
  )


@pytest.mark.parametrize("submodules", [None, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_we_load_an_adapter_of_peft_and_give_its_logits(
  pairs, peft_pairs, tmp_path, kind, submodules
):
  task = peft_pairs.task(kind)
  settings = peft.PromptTuningConfig(
    task_type=task, num_virtual_tokens=LENGTH, num_transformer_submodules=submodules
  )
  torch.manual_seed(4)
  theirs = peft.get_peft_model(pairs.theirs(kind), settings).eval()
  theirs.save_pretrained(tmp_path)
  ours = pairs.ours(kind)
  adapter = prompt_tuning.read_prompt_adapter(tmp_path, ours.config)
  assert adapter.base_model == str(pairs.folder(kind))
  assert adapter.unused == (LENGTH if task == "SEQ_2_SEQ_LM" and submodules is None else 0)
  ours = SoftPrompt(length=LENGTH, initializer=FromFile(path=tmp_path)).attach(ours, nnx.Rngs(0))
  peft_pairs.assert_close(
    peft_pairs.our_logits(ours), peft_pairs.their_logits(theirs, inserted=LENGTH)
  )


@pytest.mark.parametrize("kind", ["t5", "gpt2"])
def test_peft_generates_the_tokens_that_we_generate(pairs, peft_pairs, tmp_path, kind):
  ours = pairs.ours(kind)
  values = prompt_values()
  adapter = prompt_tuning.write_prompt_adapter(
    tmp_path / "adapter", values, ours.config, base_model=str(pairs.folder(kind))
  )
  theirs = peft.PeftModel.from_pretrained(pairs.theirs(kind), adapter).eval()
  ours = SoftPrompt(length=LENGTH, initializer=FromArray(array=values)).attach(ours, nnx.Rngs(0))
  source = peft_pairs.tokens(6, 2)
  found = generate(
    ours, {"encoder_input_tokens": source}, strategy=Greedy(), max_length=peft_pairs.NEW
  ).tokens
  wanted = theirs.generate(
    input_ids=torch.tensor(source).long(),
    attention_mask=torch.ones(source.shape, dtype=torch.long),
    max_new_tokens=peft_pairs.NEW,
    do_sample=False,
    num_beams=1,
    pad_token_id=0,
    # PEFT 0.21 puts a decoder's prompt before every cached step of transformers 5.24.
    use_cache=kind == "t5",
  ).numpy()
  wanted = wanted[:, 1:] if kind == "t5" else wanted[:, -peft_pairs.NEW :]
  found = np.asarray(found)[:, 0]
  for ours_row, theirs_row in zip(found, wanted):
    stop = (
      list(ours_row).index(ours.config.eos) + 1 if ours.config.eos in ours_row else peft_pairs.NEW
    )
    np.testing.assert_array_equal(ours_row[:stop], theirs_row[:stop])


@pytest.mark.parametrize("kind", KINDS)
def test_other_rows_would_be_noticed(pairs, peft_pairs, kind):
  ours = pairs.ours(kind)
  values = prompt_values()
  logits = [
    peft_pairs.our_logits(
      SoftPrompt(length=LENGTH, initializer=FromArray(array=rows)).attach(ours, nnx.Rngs(0)),
    )
    for rows in (values, values[::-1])
  ]
  assert np.abs(logits[0] - logits[1]).max() > 1e-3 * np.abs(logits[0]).max()
