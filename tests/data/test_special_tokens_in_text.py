"""What a user types is text, also where it looks like a special token."""

import pytest

from promot_jax import errors
from promot_jax.data import vocabularies
from promot_jax.data.sentencepiece_vocabulary import SentencePiece
from promot_jax.micro.vocabulary import UNKNOWN, vocabulary

SPELLED = ("</s>", "<pad>", "<s>", "<unk>", "<extra_id_0>", "<|endoftext|>")
TEXT = "a " + " ".join(SPELLED) + " b"


@pytest.mark.parametrize("family", ["gpt2", "bart", "llama", "t5"])
def test_special_tokens_in_a_text_are_text_unless_asked_for(family, tokenizer_folder):
  name = f"hf:{tokenizer_folder(family)}"
  words = vocabularies.open_vocabulary(name)
  special = {words.pad, words.eos, words.bos, words.sentinel(0)} - {None}
  if family == "gpt2":  # its unknown token is its eos
    special.add(words.unknown)
  assert not special & set(words.encode(TEXT))
  assert special & set(words.encode(TEXT, special_tokens=True))
  asked = vocabularies.open_vocabulary(f"{name}?special_tokens=read")
  assert asked.encode(TEXT) == words.encode(TEXT, special_tokens=True)
  assert asked.encode(TEXT, special_tokens=False) == words.encode(TEXT)
  assert asked.encode("a b") == words.encode("a b")
  assert vocabularies.digest(name) != vocabularies.digest(f"{name}?special_tokens=read")


@pytest.mark.parametrize("family", ["gpt2", "bart", "llama"])
def test_a_spelled_special_token_comes_back_as_it_was_written(family, tokenizer_folder):
  words = vocabularies.open_vocabulary(f"hf:{tokenizer_folder(family)}")
  assert words.decode(words.encode("a </s> <|endoftext|> b")) == "a </s> <|endoftext|> b"


def test_sentinels_in_a_text_of_t5_are_text(tokenizer_folder, tmp_path):
  file = tokenizer_folder("sentencepiece") / "tokenizer.model"
  appended = SentencePiece(str(file), family="llama")
  assert appended.sentinel(0) is None
  import sentencepiece
  from sentencepiece import sentencepiece_model_pb2

  model = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
  model.pieces.add(
    piece="<extra_id_0>",
    score=0.0,
    type=sentencepiece_model_pb2.ModelProto.SentencePiece.USER_DEFINED,
  )
  inside = tmp_path / "inside.model"
  inside.write_bytes(model.SerializeToString())
  assert "<extra_id_0>" in sentencepiece.SentencePieceProcessor(
    model_file=str(inside)
  ).EncodeAsPieces("a <extra_id_0>")
  words = SentencePiece(str(inside), family="llama")
  assert words.sentinel(0) not in words.encode("a <extra_id_0> b")
  assert words.sentinel(0) in words.encode("a <extra_id_0> b", special_tokens=True)
  assert words.decode(words.encode("a <extra_id_0> b")) == "a <extra_id_0> b"


def test_special_words_of_the_micro_world_are_unknown_in_a_text():
  words = vocabulary()
  assert words.encode("</s> <pad> <extra_id_0>") == [UNKNOWN] * 3
  found = words.encode("<extra_id_0> <extra_id_1>", special_tokens=True)
  assert found == [words.sentinel(0), words.sentinel(1)]


def test_an_unknown_way_to_read_special_tokens_is_refused():
  with pytest.raises(errors.ConfigError, match="write special_tokens=read"):
    vocabularies.reference("hf:x?special_tokens=yes")
