"""Our vocabularies against transformers' fast tokenizers, in folders that transformers wrote."""

import json

import pytest

from promot_jax.data import vocabularies

pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

TEXTS = ["Q: who sells the lamp? A:", "Is it  true or false?", "True", "à côté 🙂", "a\n b", ""]
CLASSES = {
  "gpt2": "GPT2TokenizerFast",
  "bart": "BartTokenizerFast",
  "llama": "LlamaTokenizerFast",
  "t5": "PreTrainedTokenizerFast",
}


@pytest.fixture(scope="module")
def written(tokenizer_folder, tmp_path_factory):
  """family -> (transformers' tokenizer, the folder it was saved to)."""
  found = {}
  for family, name in CLASSES.items():
    theirs = getattr(transformers, name).from_pretrained(tokenizer_folder(family))
    folder = tmp_path_factory.mktemp("written") / family
    theirs.save_pretrained(folder)
    found[family] = theirs, folder
  return found


@pytest.mark.parametrize("family", CLASSES)
def test_ids_and_special_tokens_are_those_of_transformers(written, family):
  theirs, folder = written[family]
  ours = vocabularies.open_vocabulary(f"hf:{folder}")
  assert (ours.family, ours.size, ours.eos) == (family, len(theirs), theirs.eos_token_id)
  assert ours.bos == theirs.bos_token_id
  if family in ("bart", "t5"):
    assert ours.pad == theirs.pad_token_id
  for text in TEXTS:
    assert ours.encode(text) == theirs(text, add_special_tokens=False).input_ids
    if not text:
      continue  # LLaMA's puts a blank before a separator that begins a text, and ours never begins
    # x and its separator as one text: nothing comes between them
    framed = text + "\n" if family in ("gpt2", "llama") else text
    assert ours.input_frame.around(ours.encode(text)).tolist() == theirs(framed).input_ids


@pytest.mark.parametrize("family", CLASSES)
def test_decoded_text_is_that_of_transformers(written, family):
  theirs, folder = written[family]
  ours = vocabularies.open_vocabulary(f"hf:{folder}")
  for text in TEXTS:
    tokens = ours.target_frame.around(ours.encode(text)).tolist()
    expected = theirs.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if theirs.unk_token_id not in ours.encode(text):
      assert ours.decode(tokens) == expected


@pytest.mark.parametrize("family", ["bart"])
def test_bart_targets_are_the_labels_that_transformers_makes(written, family):
  theirs, folder = written[family]
  ours = vocabularies.open_vocabulary(f"hf:{folder}")
  labels = theirs(text_target="True or false").input_ids
  assert ours.target_frame.around(ours.encode("True or false")).tolist() == labels


def test_both_styles_of_naming_special_tokens_are_read(written, tmp_path):
  """transformers 4 also wrote special_tokens_map.json, with tokens as objects."""
  _, folder = written["bart"]
  older = tmp_path / "older"
  older.mkdir()
  (older / "tokenizer.json").write_text((folder / "tokenizer.json").read_text())
  names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
  objects = {name: {"content": token, "lstrip": False} for name, token in names.items()}
  (older / "special_tokens_map.json").write_text(json.dumps(objects))
  newer, found = (vocabularies.open_vocabulary(f"hf:{each}") for each in (folder, older))
  for name in ("family", "pad", "bos", "eos", "unknown", "input_frame", "target_frame"):
    assert getattr(found, name) == getattr(newer, name)


@pytest.mark.parametrize("family", ["gpt2", "bart", "llama"])
def test_special_tokens_in_texts_are_split_as_transformers_splits_them(written, family):
  """Not T5's Unigram: there transformers finds "</s>" among the pieces all the same."""
  theirs, folder = written[family]
  ours = vocabularies.open_vocabulary(f"hf:{folder}")
  for text in ("a </s><pad> b", "<s>", "x<|endoftext|>y", "<unk> <mask>"):
    options = {"add_special_tokens": False}
    assert ours.encode(text) == theirs(text, split_special_tokens=True, **options).input_ids
    assert ours.encode(text, special_tokens=True) == theirs(text, **options).input_ids
