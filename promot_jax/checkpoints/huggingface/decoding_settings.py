"""How a folder of transformers wants to be decoded, in our words; special tokens aside.

A model here is decoded as its recipe says (`EvaluationPlan.strategy`).  So a folder's own settings
are not followed: they are named, with the strategy that corresponds to them.
"""

from collections.abc import Mapping
from typing import Any

from promot_jax.checkpoints.huggingface import reader

# Settings that have a counterpart here -> transformers' value where the file does not mention them.
_STRATEGY = {
  "do_sample": False,
  "num_beams": 1,
  "num_return_sequences": 1,
  "length_penalty": 1.0,
  "early_stopping": False,
  "temperature": 1.0,
  "top_k": 50,
  "top_p": 1.0,
}
_LENGTHS = {"max_new_tokens", "max_length"}
# Settings without counterpart that change what is written -> the value that changes nothing.
_WITHOUT = {
  "bad_words_ids": None,
  "begin_suppress_tokens": None,
  "constraints": None,
  "diversity_penalty": 0.0,
  "dola_layers": None,
  "encoder_no_repeat_ngram_size": 0,
  "encoder_repetition_penalty": 1.0,
  "epsilon_cutoff": 0.0,
  "eta_cutoff": 0.0,
  "exponential_decay_length_penalty": None,
  "force_words_ids": None,
  "guidance_scale": 1.0,
  "max_time": None,
  "min_length": 0,
  "min_new_tokens": 0,
  "min_p": None,
  "no_repeat_ngram_size": 0,
  "num_beam_groups": 1,
  "penalty_alpha": None,
  "remove_invalid_values": False,
  "renormalize_logits": False,
  "repetition_penalty": 1.0,
  "sequence_bias": None,
  "stop_strings": None,
  "suppress_tokens": None,
  "token_healing": False,
  "top_h": None,
  "typical_p": 1.0,
  "watermarking_config": None,
}


def note(content: Mapping[str, Any]) -> str:
  """One line about what of a folder's decoding is not followed; empty where there is nothing to say.

  Args:
    content: as `reader.read_config` gives it.
  """
  generation = content.get(reader.GENERATION)
  where = reader.CONFIG if generation is None else reader.GENERATION
  found = content if generation is None else generation
  without = [
    f"{name}={found[name]!r}"
    for name, neutral in _WITHOUT.items()
    # Null and empty stand for 'not set' in these files, whatever the neutral value is.
    if found.get(name) not in (None, neutral, [], {})
  ]
  parts = []
  if without:
    parts.append(f"{', '.join(without)} (nothing here corresponds to that)")
  counterpart = strategy(found)
  if counterpart is None:
    given = [f"{name}={found[name]!r}" for name in _STRATEGY if found.get(name) is not None]
    parts.append(f"{', '.join(given)} (no strategy here samples and searches at once)")
  elif counterpart != "Greedy()":
    parts.append(f"its search (EvaluationPlan.strategy = {counterpart} is the same)")
  copies = found.get("num_return_sequences")
  # Only samples are several outputs of one input here.
  if copies not in (None, 1) and counterpart is not None and not found.get("do_sample"):
    parts.append(f"num_return_sequences={copies!r} (a search here gives its best output alone)")
  lengths = [f"{name}={found[name]}" for name in sorted(_LENGTHS) if found.get(name) is not None]
  # Many a config.json names a length, which alone is no reason for a line.
  if lengths and (parts or generation is not None):
    parts.append(f"{', '.join(lengths)} (EvaluationPlan.feature_lengths decides)")
  line = f"{where} is not followed in {'; '.join(parts)}" if parts else ""
  # Worth a line of its own: such outputs end at the greatest length only.
  if generation is not None and generation.get("eos_token_id") is None:
    endless = f"{where} names no eos_token_id, so that outputs end at the greatest length only"
    line = f"{endless}; {line}" if line else endless
  return line


def strategy(settings: Mapping[str, Any]) -> str | None:
  """The strategy of ours that decodes as these settings; None where there is none."""
  value = {
    # Null means transformers' default.
    name: default if settings.get(name) is None else settings[name]
    for name, default in _STRATEGY.items()
  }
  copies = value["num_return_sequences"]
  if value["num_beams"] != 1:
    if value["do_sample"]:
      return None
    return (
      f"TransformersBeam(width={value['num_beams']}, length_penalty={value['length_penalty']},"
      f" early_stopping={value['early_stopping']!r})"
    )
  if value["do_sample"]:
    return (
      f"Sample(temperature={value['temperature']}, top_k={value['top_k']}, top_p={value['top_p']},"
      f" samples={copies})"
    )
  return "Greedy()"
