"""What our networks lack for models that users bring: `model_type` -> (the name, what is missing).

Read in transformers' code of each.  Not a promise: a model that is not named here is refused as well.
"""

_LLAMA = "of a LLaMA-like model"

REFUSED: dict[str, tuple[str, str]] = {
  # decoder-only
  "mistral": ("Mistral", f"a sliding window of attention {_LLAMA}"),
  "ministral": ("Ministral", f"a sliding window of attention {_LLAMA}"),
  "mixtral": ("Mixtral", "layers that are mixtures of experts"),
  "qwen2": ("Qwen 2", f"biases of the query, key and value projections {_LLAMA}"),
  "qwen2_moe": ("Qwen 2 MoE", "layers that are mixtures of experts"),
  "qwen3": ("Qwen 3", f"the norms of queries and keys in each head {_LLAMA}"),
  "qwen3_moe": ("Qwen 3 MoE", "layers that are mixtures of experts"),
  "gemma": ("Gemma", "norms that multiply by 1 + w, and scaled embeddings"),
  "gemma2": ("Gemma 2", "norms after each sublayer, windows of attention, and capped logits"),
  "gemma3": ("Gemma 3", "an image encoder; its text part is a model of type gemma3_text"),
  "gemma3_text": (
    "Gemma 3",
    "norms after each sublayer, norms of queries and keys, and windows of attention in five layers of six",
  ),
  "phi": ("Phi", "rotations of a part of each head, and parallel layers with biases"),
  "phi3": (
    "Phi 3",
    "one fused projection of queries, keys and values, and its scaling of rotations",
  ),
  "falcon": ("Falcon", "one fused projection of queries, keys and values in parallel layers"),
  "opt": ("OPT", "learned positions with an offset, and its projections around narrow embeddings"),
  "bloom": ("BLOOM", "attention that is biased by distance (ALiBi)"),
  "mpt": ("MPT", "attention that is biased by distance (ALiBi)"),
  "gpt_neo": ("GPT-Neo", "unscaled attention with local layers"),
  "gpt_neox": (
    "GPT-NeoX",
    "rotations of a part of each head, and its two norms of parallel layers",
  ),
  "gptj": ("GPT-J", "rotations of neighbouring features in a part of each head"),
  "gpt_bigcode": ("GPT BigCode", "the fused projection with one head of keys and values"),
  "olmo": ("OLMo", "norms without weights"),
  "olmo2": ("OLMo 2", "norms after each sublayer, and norms of queries and keys"),
  "granite": ("Granite", "its four factors of embeddings, attention, residuals and logits"),
  "smollm3": ("SmolLM3", "layers without positions"),
  "llama4": ("Llama 4", "layers that are mixtures of experts, and layers without positions"),
  "deepseek_v3": ("DeepSeek V3", "compressed keys and values, and mixtures of experts"),
  "gpt_oss": ("gpt-oss", "mixtures of experts, attention sinks and windows"),
  "mamba": ("Mamba", "a state instead of attention"),
  # encoder-decoders
  "mbart": ("mBART", "norms before each sublayer of a BART, and language codes"),
  "plbart": ("PLBART", "norms before each sublayer of a BART, and language codes"),
  "m2m_100": (
    "M2M-100 or NLLB",
    "sinusoidal positions, norms before each sublayer, and language codes",
  ),
  "marian": (
    "Marian",
    "sinusoidal positions, and norms after each sublayer without one of the embeddings",
  ),
  "pegasus": ("Pegasus", "sinusoidal positions, and norms before each sublayer"),
  "pegasus_x": ("PEGASUS-X", "attention in blocks"),
  "bigbird_pegasus": ("BigBird-Pegasus", "sparse attention"),
  "blenderbot": ("Blenderbot", "norms before each sublayer of a BART"),
  "led": ("LED", "the encoder's windows of attention"),
  "prophetnet": ("ProphetNet", "a decoder that predicts several tokens at once"),
  "longt5": ("LongT5", "the encoder's local attention"),
  "switch_transformers": ("Switch Transformers", "layers that are mixtures of experts"),
  "t5gemma": (
    "T5Gemma",
    "Gemma 2's layers in two stacks: norms after each sublayer, windows of attention, capped logits",
  ),
  "t5gemma2": (
    "T5Gemma 2",
    "Gemma 3's layers, and attention that reads encoder and decoder at once",
  ),
  "whisper": ("Whisper", "an encoder of sound"),
  # neither
  "roberta": ("RoBERTa", "its positions, which are counted from the padding id"),
  "deberta-v2": ("DeBERTa", "its attention to contents and positions apart"),
  "distilbert": ("DistilBERT", "an encoder without segments"),
  "electra": ("ELECTRA", "a decoder: it writes no text"),
}
