"""Tasks with a user's own tokenizer: registration on demand, ids in tf.data, what is cut."""

import json
import shutil

import numpy as np
import pytest

import tasks
from promot_jax import errors
from promot_jax.data import vocabularies

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
tokenizers = pytest.importorskip("tokenizers")
from tasks import vocabularies as seqio_vocabularies  # noqa: E402

TEXTS = ["Q: who sells the lamp? A:", "", "à côté 🙂"]


def load(task: str, folder, *, lengths=None, limit=3, split="validation", target="raw", **options):
  name = f"hf:{folder}"
  full = tasks.resolve(task, source="micro", vocabulary=name, target=target)
  return tasks.load_examples(full, split, lengths or {}, limit=limit, vocabulary=name, **options)


def whole(folder, text: str) -> list[int]:
  """Ids of the tokenizer's own library, with what it adds."""
  return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids


@pytest.mark.parametrize("family", ["gpt2", "bart", "llama", "sentencepiece"])
def test_a_tf_data_graph_gives_the_same_ids_and_text(tokenizer_folder, family):
  lazy = seqio_vocabularies.seqio_vocabulary(f"hf:{tokenizer_folder(family)}")
  plain = lazy.plain
  encoded = tf.data.Dataset.from_tensor_slices(TEXTS).map(lazy.encode_tf)
  assert encoded.element_spec == tf.TensorSpec([None], tf.int32)
  rows = [row.tolist() for row in encoded.as_numpy_iterator()]
  assert rows == [plain.encode(text) for text in TEXTS] == [lazy.encode(text) for text in TEXTS]
  together = tf.data.Dataset.from_tensors(tf.constant(TEXTS)).map(lazy.encode_tf)
  assert next(iter(together)).to_list() == rows
  texts = tf.data.Dataset.from_tensors([*rows[0], plain.eos, 5]).map(lazy.decode_tf)
  assert next(iter(texts)).numpy().decode() == TEXTS[0] == lazy.decode([*rows[0], plain.eos, 5])
  assert (lazy.vocab_size, lazy.eos_id, lazy.bos_id, lazy.pad_id, lazy.unk_id) == (
    plain.size,
    plain.eos,
    plain.bos,
    plain.pad,
    plain.unknown,
  )


def test_names_carry_the_tokenizer_and_are_equal_for_one_place(tokenizer_folder):
  name = f"hf:{tokenizer_folder('bart')}"
  label = vocabularies.label(name)
  resolve = tasks.resolve
  assert resolve("rte_1shot", source="micro", vocabulary=name) == f"rte_1shot.micro.{label}"
  assert resolve("xsum", vocabulary=name, target="sentinel") == f"xsum.tfds.{label}.sentinel"
  made = seqio_vocabularies.seqio_vocabulary.__wrapped__  # without the cache
  assert made(name) == made(name) != made(f"hf:{tokenizer_folder('gpt2')}")
  with pytest.raises(errors.ConfigError, match=r"'rte.micro' names its vocabulary already.*'rte'"):
    resolve("rte.micro", source="micro", vocabulary=name)


def test_bart_examples_are_framed_by_its_own_tokenizer(tokenizer_folder):
  folder = tokenizer_folder("bart")
  examples = load("rte_1shot", folder)
  for inputs, targets, record in zip(examples.inputs, examples.targets, examples.records):
    assert inputs.tolist() == whole(folder, record["inputs"])
    assert targets.tolist() == whole(folder, record["targets"])
  assert examples.lengths.input_end == "EOS"


def test_decoder_only_inputs_end_with_their_separator(tokenizer_folder):
  for family in ("gpt2", "llama"):
    folder = tokenizer_folder(family)
    plain = vocabularies.open_vocabulary(f"hf:{folder}")
    examples = load("rte", folder)
    for inputs, targets, record in zip(examples.inputs, examples.targets, examples.records):
      assert inputs.tolist() == whole(folder, record["inputs"] + "\n")
      assert targets.tolist() == [*plain.encode(record["targets"]), plain.eos]
      assert plain.decode(targets) in ("True", "False")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_one_text_is_tokenized_at_once_with_demonstrations_like_the_query(tokenizer_folder, family):
  folder = tokenizer_folder(family)
  plain = vocabularies.open_vocabulary(f"hf:{folder}")
  examples = load("cb_1shot", f"{folder}?separator=%20")
  for inputs, targets, record in zip(examples.inputs, examples.targets, examples.records):
    text = whole(folder, f"{record['inputs']} {record['targets']}")
    assert [*inputs.tolist(), *targets.tolist()] == [*text, plain.eos]
    assert inputs.tolist() == whole(folder, record["inputs"])
    demonstration, query = record["inputs"].split("\n\n")
    assert query.endswith(" answer:")
    assert demonstration.rpartition(" answer: ")[2] in ("True", "False", "Neither")
  cut = load("cb", f"{folder}?separator=%20", lengths={"inputs": 9})
  assert all(plain.decode(tokens).endswith("answer:") for tokens in cut.inputs)
  assert "inputs cut at the start: 3 of 3" in str(cut.lengths)
  assert "its end kept" in str(cut.lengths)


def test_demonstrations_of_a_separator_are_joined_by_it(tokenizer_folder):
  examples = load("cb_1shot", tokenizer_folder("gpt2"))
  for record in examples.records:
    demonstration, _ = record["inputs"].split("\n\n")
    assert demonstration.rpartition(" answer:\n")[2] in ("True", "False", "Neither")


@pytest.mark.parametrize("task", ["rte", "rte_1shot"])
def test_what_is_cut_keeps_bos_separator_and_end(tokenizer_folder, task):
  folder = tokenizer_folder("llama")
  full = load(task, folder, target="raw")
  cut = load(task, folder, lengths={"inputs": 9, "targets": 2})
  for short, long in zip(cut.inputs, full.inputs):
    text = long[1:-1]  # between bos and the newline
    kept = text[-7:] if "shot" in task else text[:7]
    assert short.tolist() == [1, *kept, long[-1]]
  assert all(len(tokens) == 2 and tokens[-1] == 2 for tokens in cut.targets)
  assert "separator kept" in str(cut.lengths)
  with pytest.raises(errors.ConfigError, match=r"feature length of the inputs is 2; at least 3"):
    load(task, folder, lengths={"inputs": 2})


def test_seqio_itself_cuts_alike(tokenizer_folder):
  folder = tokenizer_folder("llama")
  ours = load("rte", folder, lengths={"inputs": 9, "targets": 2})
  dataset = seqio.get_mixture_or_task(ours.name).get_dataset(
    sequence_length={"inputs": 9, "targets": 2}, split="validation", shuffle=False
  )
  for inputs, targets, element in zip(ours.inputs, ours.targets, dataset.as_numpy_iterator()):
    np.testing.assert_array_equal(inputs, element["inputs"])
    np.testing.assert_array_equal(targets, element["targets"])


def test_a_changed_tokenizer_makes_the_cache_invalid(tokenizer_folder, tmp_path):
  folder = tmp_path / "mine"
  shutil.copytree(tokenizer_folder("bart"), folder)
  first = load("cb", folder, cache_dir=tmp_path / "cache")
  again = load("cb", folder, cache_dir=tmp_path / "cache")
  assert again.fingerprint == first.fingerprint
  file = folder / "tokenizer.json"
  file.write_text(json.dumps(json.loads(file.read_text()), indent=1))
  assert load("cb", folder, cache_dir=tmp_path / "cache").fingerprint != first.fingerprint
  assert len(list((tmp_path / "cache").iterdir())) == 2


def test_sentinels_of_a_tokenizer_frame_targets(tokenizer_folder):
  folder = tokenizer_folder("t5")
  plain = vocabularies.open_vocabulary(f"hf:{folder}")
  examples = load("rte", folder, target="sentinel")
  for tokens in examples.targets:
    assert tokens[0] == plain.sentinel(0) and tokens[-2:].tolist() == [plain.sentinel(1), plain.eos]
