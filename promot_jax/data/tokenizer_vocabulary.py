"""A Hugging Face fast tokenizer (tokenizer.json) as vocabulary: GPT-2, BART, BERT, LLaMA-like, T5.

The `tokenizers` library alone is used: importing transformers would cost seconds in every process.
What belongs around a text is what the tokenizer itself adds: bos and eos as in BART (of BERT [CLS] and
[SEP], which is the same way), eos as in T5,
bos as in LLaMA, nothing as in GPT-2; the last two are decoder-only.
"""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import errors
from promot_jax.data import token_families, vocabulary_files

_NO_TEXT = "\0"  # before a piece that no text contains
# Names that are tried where the folder does not say what its special tokens are.
_USUAL = {
  "bos": ("<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>", "[CLS]"),
  "eos": ("</s>", "<|end_of_text|>", "<eos>", "<|endoftext|>", "[SEP]"),
  "pad": ("<pad>", "[PAD]", "<|pad|>"),
  "unk": ("<unk>", "[UNK]"),
}
_BERT_HAS = {"bos": "cls_token", "eos": "sep_token"}  # what begins and ends an input of BERT's


class Tokenizer:
  """The tokenizer of a folder.

  Args:
    folder: holds tokenizer.json and, as transformers writes it, tokenizer_config.json.
    family: what belongs around texts, see `token_families`; None = what the tokenizer adds itself.
    special_tokens: whether special tokens that a text spells are those tokens, if `encode` is not told
      otherwise.
    separator: text between input and target of a decoder-only family; None = a newline, a blank
      makes them one text (`joining`).

  Raises:
    ConfigError: a file cannot be read, or a token is missing that the family needs.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    family: str | None = None,
    separator: str | None = None,
    special_tokens: bool = False,
  ):
    import tokenizers

    self.folder = folder
    file = folder / vocabulary_files.TOKENIZER
    self._reads_special_tokens = special_tokens
    try:
      written = file.read_text(encoding="utf-8")
      # From the text and not from the file: it is needed twice, once without special tokens.
      self._tokenizer = tokenizers.Tokenizer.from_str(written)
      self._text_tokenizer = tokenizers.Tokenizer.from_str(_of_text(written))
    except Exception as cause:  # the library raises bare Exceptions
      raise errors.ConfigError(f"{file} is not a tokenizer: {cause}") from cause
    # The library's word for 'take special tokens for text'.
    self._text_tokenizer.encode_special_tokens = True  # as text, that is
    for each in (self._tokenizer, self._text_tokenizer):
      each.no_truncation()  # a file may come with both switched on
      each.no_padding()
    ids = self._tokenizer.get_vocab(with_added_tokens=True)
    self._ids = ids
    # Ids need not be dense: the embedding has a row for each up to the largest.
    self.size = max(ids.values()) + 1
    """One more than the largest id, whether or not all smaller ones are in use."""
    described = _description(folder)
    self.unknown = self._special("unk", described)
    eos = self._special("eos", described)
    if eos is None:
      raise errors.ConfigError(
        f"tokenizer {folder} names no eos token; set eos_token in its tokenizer_config.json."
      )
    self.eos: int = eos
    self.bos = self._special("bos", described)
    self.family = family or self._recognized(described)
    if token_families.needs_bos(self.family) and self.bos is None:
      raise errors.ConfigError(
        f"tokenizer {folder} names no bos token, with which inputs of the family '{self.family}'"
        " begin; set bos_token in its tokenizer_config.json."
      )
    self.joining = token_families.joining(self.family, separator, source=str(folder))
    # Such a model needs no padding token, and a number that no token has cannot be taken for one.
    self.pad = token_families.NO_TOKEN
    separator_ids: tuple[int, ...] = ()
    if token_families.is_decoder_only(self.family):
      spelled = functools.partial(self.encode, special_tokens=True)  # a recipe means what it says
      separator_ids = token_families.separator_ids(spelled, separator, source=str(folder))
    else:
      self.pad = self._pad(described)
    self.input_frame, self.target_frame = token_families.frames(
      self.family, bos=self.bos, eos=self.eos, separator=separator_ids
    )

  def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
    """Tokens of `text`, without anything around them.

    Args:
      special_tokens: whether "</s>" in the text is that token, or four characters; None: as the
        vocabulary's name says, which is the latter without ?special_tokens=read.
    """
    read = self._reads_special_tokens if special_tokens is None else special_tokens
    return self._encode(self._tokenizer if read else self._text_tokenizer, text)

  def decode(self, tokens: Sequence[int]) -> str:
    """Text of `tokens` up to the first end of sequence; padding and bos are left out.

    Numbers that no token has (the padded rows of an embedding) become unknown, or are left out
    where the tokenizer has no unknown token.
    """
    kept: list[int] = []
    for token in map(int, tokens):
      if token == self.eos:
        break
      # A row of an embedding that is padded to a multiple.
      if token >= self.size and self.unknown is not None:
        kept.append(self.unknown)
      elif 0 <= token < self.size and token not in (self.pad, self.bos):
        kept.append(token)
    # Sentinels count as special tokens in T5's files, and they are part of the text.
    return self._tokenizer.decode(kept, skip_special_tokens=False)

  def sentinel(self, number: int) -> int | None:
    """Id of <extra_id_number>; None where the tokenizer has no such token."""
    return self._ids.get(f"<extra_id_{number}>")

  def _encode(self, tokenizer: Any, text: str, *, framed: bool = False) -> list[int]:
    try:
      return tokenizer.encode(text, add_special_tokens=framed).ids
    except Exception as cause:  # the library raises bare Exceptions: its file contradicts itself
      raise errors.ConfigError(f"tokenizer {self.folder} cannot be used: {cause}") from cause

  def _special(self, name: str, described: Mapping[str, Any]) -> int | None:
    """Id of the token that the folder names, or of the first usual name that is in use."""
    # BERT's files name their tokens after what they do there.
    found = described.get(f"{name}_token") or described.get(_BERT_HAS.get(name, ""))
    if found is None:
      found = next((usual for usual in _USUAL[name] if usual in self._ids), None)
    return self._ids.get(found) if isinstance(found, str) else None

  def _pad(self, described: Mapping[str, Any]) -> int:
    pad = self._special("pad", described)
    if pad is None:
      raise errors.ConfigError(
        f"tokenizer {self.folder} names no pad token, which encoder-decoders need; set pad_token in"
        " its tokenizer_config.json, or, if the model is a decoder alone, add ?family=gpt2."
      )
    return pad

  def _recognized(self, described: Mapping[str, Any]) -> str:
    """The family that adds around a text what the tokenizer adds."""
    # One letter is a piece in every vocabulary, with and without what belongs around it.
    bare = self.encode("x")
    whole = self._encode(self._tokenizer, "x", framed=True)
    start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    before, after = whole[:start], whole[start + len(bare) :]
    # transformers lets these two settings overrule the file's own rule.
    if isinstance(adds := described.get("add_bos_token"), bool):
      before = [self.bos] if adds and self.bos is not None else []
    if isinstance(adds := described.get("add_eos_token"), bool):
      after = [self.eos] if adds else []
    if before not in ([], [self.bos]) or after not in ([], [self.eos]):
      raise errors.ConfigError(
        f"tokenizer {self.folder} puts the tokens {before} before and {after} after a text, which is"
        f" none of the known ways; name one: ?family={' or '.join(token_families.FAMILIES)}"
      )
    return token_families.recognized(bos=bool(before), eos=bool(after))


def _of_text(written: str) -> str:
  """A tokenizer.json for which special tokens are no pieces that a text may be cut into.

  The library's Unigram and WordLevel models find "</s>" among their pieces even if it is told to take
  special tokens for text; SentencePiece, from which these models come, never does.
  """
  content = json.loads(written)
  model = content.get("model") or {}
  special = {t["content"] for t in content.get("added_tokens") or () if t.get("special")}
  pieces: Any = model.get("vocab") or ()
  # Lists of pieces with scores, which the files of old versions have without naming the type.
  if model.get("type") == "Unigram" or (isinstance(pieces, list) and "unk_id" in model):
    # Renamed and not removed: ids are places in this list.
    known = {piece for piece, _ in pieces}
    model["vocab"] = [[_NO_TEXT + p if p in special else p, score] for p, score in pieces]
  elif model.get("type") == "WordLevel":
    # The unknown piece must stay, because the model looks it up by its name.
    known = set(pieces) - {model.get("unk_token")}
    model["vocab"] = {_NO_TEXT + p if p in special & known else p: i for p, i in pieces.items()}
  else:
    return written
  hidden = special & known
  # Otherwise the library would add them again, under further ids.
  content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in hidden]
  return json.dumps(content)


def _description(folder: pathlib.Path) -> dict[str, Any]:
  """Settings of the folder; special tokens as their text."""
  described: dict[str, Any] = {}
  for name in reversed(vocabulary_files.DESCRIPTIONS):  # tokenizer_config.json has the last word
    file = folder / name
    if not file.is_file():
      continue
    try:
      content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
      raise errors.ConfigError(f"{file} is no JSON: {cause}") from cause
    if not isinstance(content, dict):
      raise errors.ConfigError(f"{file} holds no JSON object.")
    for key, value in content.items():
      # A special token is a text, or an object that has it under 'content'.
      text = value.get("content") if isinstance(value, dict) else value
      if text is not None:
        described[key] = text
  return described
