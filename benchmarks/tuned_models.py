"""The methods that the benchmarks compare: ours with their recipes' settings, and PEFT's twins.

Every step has Adam, so that what differs is the method: moments are twice what is trained.
"""

import dataclasses
import functools
import tempfile
from typing import Any

import peft
import torch
from flax import nnx
from side_by_side import Case, our_backbone, torch_backbone
from steps import OurStep, TheirStep

from promot_jax.methods import lora, prefix, prompt
from promot_jax.methods.adapter import Adapter
from promot_jax.methods.bias import BitFit
from promot_jax.methods.ia3 import IA3
from promot_jax.methods.infix import InfixTuning
from promot_jax.methods.initializers import FromFile
from promot_jax.methods.top_layers import TopLayers
from promot_jax.training import optimizers

RATE = 1e-3
FULL = "full"
PREFIX = 10
RANK = 8  # and alpha, as in PEFT's defaults


def methods(case: Case) -> dict[str, Any]:
  """Every method that is defined on the network, by name; of full fine-tuning None."""
  p_tuning = prompt.PromptNetwork(hidden=512, hidden_layers=2, activation="relu")
  found = {
    FULL: None,
    "prompt": prompt.SoftPrompt(length=case.prompt),
    "p_tuning": prompt.SoftPrompt(length=case.prompt, network=p_tuning),
    "prefix": prefix.PrefixTuning(length=PREFIX),
    "prefix_network": prefix.PrefixTuning(
      length=PREFIX, reparameterization=prefix.Reparameterization()
    ),
    "infix": InfixTuning(length=PREFIX),
    "lora": lora.LoRA(),
    "ia3": IA3(),
    "adapter": Adapter(),
    "adapter_lin": Adapter(placement="lin"),
    "bitfit": BitFit(),
    "top_layers": TopLayers(),
  }
  if not case.decoder_only:
    del found["infix"]
  return found


def our_step(case: Case, weights: dict, method: Any) -> OurStep:
  """The step of a method, or of full fine-tuning for None."""
  model = our_backbone(case, weights)
  if method is not None:
    model = method.attach(model, nnx.Rngs(1))
  return OurStep(model, ".*" if method is None else method.parameters, optimizers.adam, RATE)


def same_works(case: Case) -> dict[str, Any]:
  """Our methods that compute what PEFT's of the same names do."""
  # PEFT's own choice: queries and values, or GPT-2's fused projection, that is keys too.
  targets = ".*/(query|key|value)" if case.decoder_only else ".*/(query|value)"
  return {
    FULL: None,
    "prompt": prompt.SoftPrompt(length=case.prompt),
    "prefix": prefix.PrefixTuning(length=PREFIX, sites=["decoder"], positions="peft"),
    "lora": lora.LoRA(rank=RANK, alpha=RANK, targets=targets),
  }


def their_step(case: Case, weights: dict, name: str) -> TheirStep:
  """The step of PEFT's method of this name, or of transformers' model."""
  model = torch_backbone(case, weights, use_cache=False)
  if name != FULL:
    model = peft.get_peft_model(model, _settings(case, name))
  return TheirStep(model, functools.partial(torch.optim.Adam, lr=RATE))


def pair(case: Case, weights: dict, name: str) -> tuple[OurStep, TheirStep]:
  """Both steps from the same values: ours reads the adapter that PEFT saves."""
  theirs = their_step(case, weights, name)
  method = same_works(case)[name]
  if method is None:
    return our_step(case, weights, None), theirs
  with tempfile.TemporaryDirectory() as folder:
    theirs.model.save_pretrained(folder)
    method = dataclasses.replace(method, initializer=FromFile(path=folder))
    return our_step(case, weights, method), theirs


def same_parameters(case: Case, name: str) -> bool:
  """Whether both sides train the same parameters, so that losses stay equal after an update.

  In an encoder-decoder of an even number of layers PEFT's prefix has the same vectors in the two
  halves of the decoder; ours starts with these and trains each layer's own.
  """
  return case.decoder_only or name != "prefix" or case.config.decoder_layers % 2 == 1


def _settings(case: Case, name: str) -> peft.PeftConfig:
  task = "CAUSAL_LM" if case.decoder_only else "SEQ_2_SEQ_LM"
  if name == "prompt":
    return peft.PromptTuningConfig(
      task_type=task, num_virtual_tokens=case.prompt, num_transformer_submodules=1
    )
  if name == "prefix":
    config = case.config
    # PEFT takes the width of the model, which is not that of all heads together in T5 1.1.
    width = config.heads * config.head_width
    return peft.PrefixTuningConfig(
      task_type=task, num_virtual_tokens=PREFIX, token_dim=width, num_attention_heads=config.heads
    )
  fused = {"fan_in_fan_out": True} if case.decoder_only else {}
  return peft.LoraConfig(task_type=task, r=RANK, lora_alpha=RANK, **fused)
