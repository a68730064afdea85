"""Tokenizers of a user's own: ids, frames, text back, and what is refused."""

import json
import shutil
import types

import pytest

from promot_jax import errors
from promot_jax.data import vocabularies
from promot_jax.data.frames import Frame

FAMILIES = ("gpt2", "bart", "llama", "t5")
TEXTS = ["Q: who sells the lamp? A:", "Is it true or false?", "True", "à côté 🙂", "two\nlines"]
KNOWN = TEXTS[:3]  # without what a Unigram model has no pieces for


@pytest.fixture
def copied(tokenizer_folder, tmp_path):
  """(family, changes of tokenizer_config.json) -> a folder of its own."""

  def copy(family: str, **changes):
    folder = tmp_path / f"{family}_copy"
    shutil.copytree(tokenizer_folder(family), folder)
    file = folder / "tokenizer_config.json"
    described = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in described.items() if v is not None}))
    return folder

  return copy


def opened(folder, options: str = ""):
  return vocabularies.open_vocabulary(f"hf:{folder}{options}")


@pytest.mark.parametrize(
  ("family", "pad", "bos", "eos"),
  [("gpt2", -1, 0, 0), ("bart", 1, 0, 2), ("llama", -1, 1, 2), ("t5", 0, None, 1)],
)
def test_a_family_is_recognized_by_what_its_tokenizer_adds(tokenizer_folder, family, pad, bos, eos):
  found = opened(tokenizer_folder(family))
  assert (found.family, found.pad, found.bos, found.eos) == (family, pad, bos, eos)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_is_framed_as_the_tokenizers_own_library_does(tokenizer_folder, family):
  tokenizers = pytest.importorskip("tokenizers")
  theirs = tokenizers.Tokenizer.from_file(str(tokenizer_folder(family) / "tokenizer.json"))
  ours = opened(tokenizer_folder(family))
  assert ours.size == theirs.get_vocab_size()
  for text in TEXTS:
    whole = theirs.encode(text + "\n" if family in ("gpt2", "llama") else text).ids
    assert ours.input_frame.around(ours.encode(text)).tolist() == whole


@pytest.mark.parametrize("family", FAMILIES)
def test_text_comes_back(tokenizer_folder, family):
  found = opened(tokenizer_folder(family))
  for text in KNOWN if family == "t5" else TEXTS:
    tokens = found.encode(text)
    assert found.decode(tokens) == text
    generated = [*found.target_frame.prefix, *tokens, found.eos, *tokens]
    assert found.decode(generated) == text  # bos is no text, and nothing follows the end
    assert found.decode([*tokens, found.pad, found.pad]) == text


def test_rows_that_only_the_embedding_has_are_unknown_or_nothing(tokenizer_folder, copied):
  llama = opened(tokenizer_folder("llama"))
  assert llama.decode([*llama.encode("True"), llama.size + 5]) == "True<unk>"
  bare = opened(copied("gpt2", unk_token=None))
  assert bare.unknown is None
  assert bare.decode([*bare.encode("True"), bare.size + 5]) == "True"


def test_sentinels_are_those_of_the_tokenizer(tokenizer_folder):
  t5 = opened(tokenizer_folder("t5"))
  assert [t5.sentinel(0), t5.sentinel(3), t5.sentinel(4)] == [t5.size - 1, t5.size - 4, None]
  tokens = t5.encode("<extra_id_0> True <extra_id_1>", special_tokens=True)
  assert tokens[0] == t5.sentinel(0) and tokens[-1] == t5.sentinel(1)
  assert "<extra_id_0>" in t5.decode(tokens)
  assert opened(tokenizer_folder("gpt2")).sentinel(0) is None


def test_the_separator_is_what_it_adds_to_a_text(tokenizer_folder):
  folder = tokenizer_folder("llama")
  newline = opened(folder).encode("a\n")[-1]
  assert opened(folder).input_frame == Frame(prefix=(1,), suffix=(newline,))  # no blank before it
  arrow = opened(folder, "?separator=%20%3D%3E")
  assert arrow.decode([*arrow.encode("a"), *arrow.input_frame.suffix]) == "a =>"


def test_tokens_that_hold_a_line_feed_are_found(tokenizer_folder):
  gpt2 = opened(tokenizer_folder("gpt2"))
  found = vocabularies.tokens_with(gpt2, ("\n",))
  assert found and set(found) >= set(gpt2.encode("\n"))
  assert all("\n" in gpt2.decode([token]) for token in found)
  assert not set(found) & set(gpt2.encode("one line, and no more"))
  assert vocabularies.tokens_with(gpt2, ()) == ()


def test_a_named_family_wins(tokenizer_folder):
  gpt2 = opened(tokenizer_folder("llama"), "?family=gpt2")
  assert gpt2.input_frame.prefix == () and gpt2.bos == 1
  bart = opened(tokenizer_folder("bart"), "?family=llama")
  assert bart.pad == -1 and bart.input_frame.prefix == (0,) and bart.target_frame.suffix == (2,)


def test_settings_of_the_folder_overrule_the_rule_of_the_file(copied):
  assert opened(copied("llama", add_bos_token=False)).family == "gpt2"
  assert opened(copied("gpt2", add_bos_token=True)).family == "llama"


def test_a_folder_with_a_sentencepiece_model_is_a_vocabulary_too(tokenizer_folder):
  spm = pytest.importorskip("sentencepiece")
  folder = tokenizer_folder("sentencepiece")
  found = opened(folder)
  theirs = spm.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
  for text in TEXTS:
    whole = [theirs.bos_id(), *theirs.EncodeAsIds(text + "\n")]
    assert found.input_frame.around(found.encode(text)).tolist() == whole
    assert found.decode([*found.encode(text), found.eos, 77]) == text
  assert (found.family, found.pad, found.eos, found.sentinel(0)) == ("llama", -1, 2, None)
  by_file = vocabularies.open_vocabulary(f"sentencepiece:{folder}/tokenizer.model?family=llama")
  assert by_file.input_frame == found.input_frame
  with pytest.raises(errors.ConfigError, match=r"has no pad token, which the family 't5' needs"):
    vocabularies.open_vocabulary(f"sentencepiece:{folder}/tokenizer.model")


def test_t5s_model_drops_newlines_and_so_needs_another_separator(shared_data):
  place = f"sentencepiece:{shared_data / 'vocab' / 't5_spiece.model'}?family=gpt2"
  with pytest.raises(errors.ConfigError, match=r"no tokens for the separator '\\n'.*\?separator="):
    vocabularies.open_vocabulary(place)
  found = vocabularies.open_vocabulary(place + "&separator=%20answer%3A")
  assert found.decode(found.input_frame.suffix) == "answer:"


def test_names_that_mean_nothing_are_explained(tmp_path):
  for name, words in {
    "t6": "'t6' is not known; there are: t5, mt5, hf:FOLDER and sentencepiece:FILE",
    "hf:": "is not known",
    "hf:/a?family=gpt3": "family 'gpt3' is not known; there are: t5, bart, gpt2, llama",
    "hf:/a?famly=gpt2": "has an option 'famly'; there are: family=NAME",
    f"hf:{tmp_path}/none": "does not exist; give the folder",
    f"hf:{tmp_path}": "holds no tokenizer",
    f"sentencepiece:{tmp_path}/none.model": "does not exist",
  }.items():
    with pytest.raises(errors.ConfigError) as raised:
      vocabularies.open_vocabulary(name)
    assert words in str(raised.value)


def test_files_that_cannot_be_used_are_explained(copied):
  folder = copied("bart", eos_token="</end>")
  with pytest.raises(errors.ConfigError, match="names no eos token; set eos_token"):
    opened(folder)
  (folder / "tokenizer_config.json").write_text("{")
  with pytest.raises(errors.ConfigError, match=r"tokenizer_config\.json is no JSON"):
    opened(folder)
  (folder / "tokenizer.json").write_text('{"model": 3}')
  with pytest.raises(errors.ConfigError, match=r"tokenizer\.json is not a tokenizer"):
    opened(folder)


def test_an_encoder_decoder_without_padding_is_explained(copied):
  with pytest.raises(errors.ConfigError, match="names no pad token, which encoder-decoders need"):
    opened(copied("gpt2", add_eos_token=True))


def test_a_hub_name_is_fetched_at_its_revision(tokenizer_folder, monkeypatch):
  hub = pytest.importorskip("huggingface_hub")
  asked = []

  def snapshot_download(repository, *, revision, allow_patterns):
    asked.append((repository, revision, "tokenizer.json" in allow_patterns))
    return str(tokenizer_folder("gpt2"))

  monkeypatch.setattr(hub, "snapshot_download", snapshot_download)
  assert vocabularies.open_vocabulary("hf:someone/model@v1.0").family == "gpt2"
  assert asked == [("someone/model", "v1.0", True)]

  def offline(*arguments, **options):
    raise OSError("no route")

  monkeypatch.setattr(hub, "snapshot_download", offline)
  with pytest.raises(errors.ConfigError, match="no folder here, and the Hugging Face hub did not"):
    vocabularies.open_vocabulary("hf:someone/other")


def test_labels_tell_places_apart_and_fit_into_task_names():
  one, other = vocabularies.label("hf:/a/my-gpt 2"), vocabularies.label("hf:/b/my-gpt 2")
  assert one.startswith("hf:my_gpt_2_") and one != other
  assert vocabularies.label("mt5") == "mt5"


def test_the_digest_changes_with_the_files(copied):
  folder = copied("gpt2")
  before = vocabularies.digest(f"hf:{folder}")
  assert before == vocabularies.digest(f"hf:{folder}")
  (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
  assert before != vocabularies.digest(f"hf:{folder}")


def test_every_kind_has_what_is_asked_of_a_vocabulary(tokenizer_folder):
  from promot_jax.micro.vocabulary import vocabulary

  asked = [name for name in vars(vocabularies.Vocabulary) if not name.startswith("_")]
  kinds = [vocabulary(), opened(tokenizer_folder("t5")), opened(tokenizer_folder("sentencepiece"))]
  for found in kinds:
    assert not [name for name in asked if not hasattr(found, name)]
    assert isinstance(found.sentinel, types.MethodType)


JUNK = [True, -1, 10**30, [], [1], {"a": 1}, {"content": 3}, "x"]


def test_settings_of_another_type_are_refused_or_read(copied):
  folder = copied("t5")
  file = folder / "tokenizer_config.json"
  before = json.loads(file.read_text())
  for name in ("eos_token", "pad_token", "bos_token", "add_bos_token", "auto_map", "chat_template"):
    for value in JUNK:
      file.write_text(json.dumps(before | {name: value}))
      vocabularies._tokenizer.cache_clear()
      try:
        opened(folder).encode("a b")
      except errors.ConfigError:
        continue
  for content in ("[" * 100_000, "[1]", "3"):
    file.write_text(content)
    vocabularies._tokenizer.cache_clear()
    with pytest.raises(errors.ConfigError, match=r"is no JSON|no JSON object"):
      opened(folder)


def test_a_tokenizer_that_contradicts_itself_is_explained(tmp_path):
  """Words without the unknown one that it names: found when a text is read, not before."""
  import tokenizers

  words = tokenizers.Tokenizer(
    tokenizers.models.WordLevel({"a": 0, "</s>": 1, "<pad>": 2}, unk_token="<unk>")
  )
  words.add_special_tokens(["</s>", "<pad>"])
  words.save(str(tmp_path / "tokenizer.json"))
  with pytest.raises(errors.ConfigError, match="cannot be used"):
    opened(tmp_path).encode("b")
