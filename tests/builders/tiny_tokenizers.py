"""Small tokenizers as users bring them: one folder for each family, trained on the micro world.

Made with the `tokenizers` and `sentencepiece` libraries alone, with the special tokens, pre- and
post-processors of the published models.  Reached through the fixture `tokenizer_folder`.
"""

import json
import pathlib

BART = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
SENTINELS = [f"<extra_id_{number}>" for number in range(4)]


def lines() -> list[str]:
  """Text of the micro world, in which each of its words comes twice."""
  from promot_jax.micro.vocabulary import vocabulary

  words = [word for word in vocabulary().words if not word.startswith("<")]
  return [" ".join(words[start : start + 12]) for start in range(0, len(words), 6)]


def make(family: str, folder: pathlib.Path) -> pathlib.Path:
  """Writes the tokenizer of 'gpt2', 'bart', 'llama' or 't5', or the SentencePiece model of 'llama'
  as 'sentencepiece', into a new folder."""
  folder.mkdir(parents=True)
  if family == "sentencepiece":
    return _sentencepiece(folder)
  tokenizer, special = {"gpt2": _gpt2, "bart": _bart, "llama": _llama, "t5": _t5}[family]()
  tokenizer.save(str(folder / "tokenizer.json"))
  (folder / "tokenizer_config.json").write_text(json.dumps(special))
  return folder


def _byte_level(special: list[str]):
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

  tokenizer = Tokenizer(models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=len(special) + 256 + 300,
    special_tokens=special,
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines(), trainer)
  return tokenizer


def _gpt2():
  from tokenizers import processors

  tokenizer = _byte_level(["<|endoftext|>"])
  tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
  end = "<|endoftext|>"
  described = {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": False}
  return tokenizer, {**described, "bos_token": end, "eos_token": end, "unk_token": end}


def _bart():
  from tokenizers import processors

  tokenizer = _byte_level(BART)
  tokenizer.post_processor = processors.RobertaProcessing(
    ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
  )
  names = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
  described = {f"{name}_token": token for name, token in names.items()}
  return tokenizer, {"tokenizer_class": "BartTokenizer", **described}


def _llama():
  from tokenizers import Tokenizer, decoders, models, normalizers, processors, trainers

  special = ["<unk>", "<s>", "</s>"]
  octets = [f"<0x{number:02X}>" for number in range(256)]
  bare = Tokenizer(models.BPE())
  trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False)
  bare.train_from_iterator(["▁" + word for line in lines() for word in line.split()], trainer)
  learned = json.loads(bare.to_str())["model"]
  pieces = sorted(learned["vocab"], key=learned["vocab"].get)
  tokenizer = Tokenizer(
    models.BPE(
      vocab={piece: number for number, piece in enumerate([*special, *octets, *pieces])},
      merges=[tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in learned["merges"]],
      unk_token="<unk>",
      fuse_unk=True,
      byte_fallback=True,
    )
  )
  tokenizer.add_special_tokens(special)
  tokenizer.normalizer = normalizers.Sequence(
    [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
  )
  tokenizer.decoder = decoders.Sequence(
    [
      decoders.Replace("▁", " "),
      decoders.ByteFallback(),
      decoders.Fuse(),
      decoders.Strip(" ", 1, 0),
    ]
  )
  tokenizer.post_processor = processors.TemplateProcessing(
    single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
  )
  described = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False}
  return tokenizer, {**described, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def _t5():
  from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

  tokenizer = Tokenizer(models.Unigram())
  tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
  tokenizer.decoder = decoders.Metaspace()
  trainer = trainers.UnigramTrainer(
    vocab_size=400,
    special_tokens=["<pad>", "</s>", "<unk>"],
    unk_token="<unk>",
    show_progress=False,
  )
  tokenizer.train_from_iterator(lines(), trainer)
  tokenizer.add_special_tokens(SENTINELS[::-1])
  tokenizer.post_processor = processors.TemplateProcessing(
    single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
  )
  return tokenizer, {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def _sentencepiece(folder: pathlib.Path) -> pathlib.Path:
  import sentencepiece

  sentencepiece.SentencePieceTrainer.Train(
    sentence_iterator=iter(lines()),
    model_prefix=str(folder / "tokenizer"),
    vocab_size=600,
    model_type="bpe",
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    minloglevel=2,
  )
  return folder
