"""Random models of transformers with the sizes of a toy, for comparisons and as a user's own files.

All sizes differ, and heads times their width is not the width where the family allows it.  Needs the
[torch] extra.
"""

from typing import Any

import transformers

VOCABULARY, WIDTH = 37, 24
_T5 = {
  "vocab_size": VOCABULARY,
  "d_model": WIDTH,
  "num_heads": 3,
  "d_kv": 10,
  "d_ff": 36,
  "num_layers": 2,
  "num_decoder_layers": 2,
}
_BART = {
  "vocab_size": VOCABULARY,
  "d_model": WIDTH,
  "encoder_layers": 2,
  "decoder_layers": 1,
  "encoder_attention_heads": 3,
  "decoder_attention_heads": 3,
  "encoder_ffn_dim": 36,
  "decoder_ffn_dim": 36,
  "max_position_embeddings": 40,
}
_GPT2 = {
  "vocab_size": VOCABULARY,
  "n_embd": WIDTH,
  "n_head": 3,
  "n_layer": 2,
  "n_inner": 36,
  "n_positions": 40,
}
_LLAMA = {
  "vocab_size": VOCABULARY,
  "hidden_size": WIDTH,
  "intermediate_size": 36,
  "num_hidden_layers": 2,
  "num_attention_heads": 6,
  "num_key_value_heads": 2,
  "head_dim": 10,
}
_KINDS = {
  "t5": ("T5Config", "T5ForConditionalGeneration", _T5),
  "mt5": ("MT5Config", "MT5ForConditionalGeneration", _T5),
  "umt5": ("UMT5Config", "UMT5ForConditionalGeneration", _T5),
  "bart": ("BartConfig", "BartForConditionalGeneration", _BART),
  "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
  "llama": ("LlamaConfig", "LlamaForCausalLM", _LLAMA),
}


def config(kind: str, **changes) -> Any:
  """Their configuration of a tiny 't5', 'mt5', 'umt5', 'bart', 'gpt2' or 'llama'."""
  made, _, fields = _KINDS[kind]
  return getattr(transformers, made)(**{**fields, **changes})


def build(kind: str, **changes) -> Any:
  """Their model, drawn from torch's own stream: set `torch.manual_seed` for one that comes back."""
  return getattr(transformers, _KINDS[kind][1])(config(kind, **changes))
