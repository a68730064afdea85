"""Large splits whose examples are read as they are needed: the same examples, in any process and at any step."""

import pathlib

import numpy as np
import pytest

import tasks
from promot_jax import errors
from promot_jax.data import examples as example_lists
from promot_jax.data import mixtures, record_files, shuffling
from promot_jax.data.batches import TrainBatches
from promot_jax.data.stream import Stream
from promot_jax.data.vocabularies import open_vocabulary
from promot_jax.token_ids import T5
from tasks import catalog, reading

LENGTHS = {"inputs": 24, "targets": 10}
COUNT = 23


@pytest.fixture(autouse=True)
def every_split_is_large(monkeypatch):
  monkeypatch.setattr(record_files, "LARGE", 1)


@pytest.fixture
def data(tmp_path) -> pathlib.Path:
  """Two corpora of 9 and 14 pairs, of which each word of a side has its number."""
  folder = tmp_path / "wmt14_en_fr" / "train"
  folder.mkdir(parents=True)
  for corpus, numbers in (("a", range(9)), ("b", range(9, COUNT))):
    for side, word in (("en", "the dog"), ("fr", "le chien")):
      lines = [f"{word} {number} " + "is it true " * (number % 5) for number in numbers]
      (folder / f"{corpus}.{side}").write_text("\n".join(lines) + "\n")
  return tmp_path


def opened(
  data, vocabulary: str, *, target="raw", said=None, cache=None, **policies
) -> Stream | None:
  name = catalog.resolve(
    "wmt14_en_fr", source=catalog.place("files", str(data)), vocabulary=vocabulary, target=target
  )
  policies = {"malformed": "refuse", "empty_targets": "refuse", **policies}
  return reading.stream(
    name,
    "train",
    LENGTHS,
    vocabulary=vocabulary,
    words=open_vocabulary(vocabulary),
    cache_dir=cache,
    report=([] if said is None else said).append,
    **policies,
  )


@pytest.fixture
def t5(tokenizer_folder) -> str:
  return f"hf:{tokenizer_folder('t5')}"


@pytest.mark.parametrize(
  ("family", "more", "target"),
  [
    ("t5", "", "raw"),
    ("t5", "", "sentinel"),
    ("gpt2", "?separator=%20", "raw"),
    ("gpt2", "", "raw"),
  ],
)
def test_examples_are_those_of_the_split_when_it_is_read_whole(
  data, tokenizer_folder, family, more, target
):
  vocabulary = f"hf:{tokenizer_folder(family)}{more}"
  found = opened(data, vocabulary, target=target)
  whole = tasks.load_examples(found.name, "train", LENGTHS, vocabulary=vocabulary)
  order = [22, 3, 3, 0, 9, 8]
  chosen, expected = found.select(order), whole.select(order)
  assert len(found) == len(whole) == COUNT and chosen.records == expected.records
  for side in ("inputs", "targets"):
    pairs = zip(chosen.features[side], expected.features[side], strict=True)
    assert all(one.tolist() == other.tolist() for one, other in pairs)
  assert found.lengths == whole.lengths  # of so few records all are looked at
  assert whole.lengths.inputs_cut and str(whole.lengths) in str(found)


def test_every_epoch_has_every_example_once_and_any_step_can_be_asked_for(data, t5):
  def batches():
    return TrainBatches(opened(data, t5), batch_size=1, batches_per_window=23, seed=5, special=T5)

  straight = batches()
  epochs = [
    [int(straight.indices(s)[0]) for s in range(n * COUNT, (n + 1) * COUNT)] for n in (0, 1)
  ]
  assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(COUNT)) and epochs[0] != epochs[1]
  later = batches()(30)
  for name, array in straight(30).items():
    assert np.array_equal(array, later[name]), name
  # No batch is longer than the limits, whatever the sample of lengths had.
  assert straight.buckets.inputs[-1] == 24 and straight.buckets.targets[-1] == 12


def test_it_is_mixed_with_a_split_that_is_in_memory(data, t5):
  tokens = [np.asarray([7, 7, number + 9, 1], np.int32) for number in range(4)]
  small = example_lists.in_memory("small", tokens, tokens, [{}] * 4)
  mixed = TrainBatches(
    [small, opened(data, t5)], batch_size=8, rates=mixtures.weighted([1, 3]), special=T5
  )
  ids = np.concatenate([mixed(step)["prompt_ids"] for step in range(24)])  # three blocks of 64
  assert np.mean(ids == 1) == 0.75 and mixed.prompt_ids.tolist() == [0, 1]
  for step in range(4):
    batch, numbers = mixed(step), mixed.indices(step)
    assert (batch["prompt_ids"] == (numbers >= 4)).all()
    own = batch["encoder_input_tokens"][numbers < 4]
    assert (own[:, 2] - 9 == numbers[numbers < 4]).all()


def test_a_record_that_cannot_be_used_is_refused_or_weighs_nothing(data, t5):
  path = data / "wmt14_en_fr" / "train" / "a.fr"
  lines = path.read_text().split("\n")
  path.write_text("\n".join([*lines[:3], "", "  ", *lines[5:]]))
  with pytest.raises(errors.DataError, match=r"a\.fr:4 is empty\. Correct .*MALFORMED=\"'skip'\""):
    opened(data, t5)
  said: list[str] = []
  found = opened(data, t5, malformed="skip", said=said)
  batch = TrainBatches(found, batch_size=23, special=T5)(0)
  weights = batch["decoder_loss_weights"].sum(axis=1)
  assert (weights == 0).sum() == 2 and batch["encoder_input_mask"].any(axis=1).all()
  assert said == [f"data      {found.name} train: 2 records left out so far (malformed records)"]
  path.write_text("\n".join([*lines[:3], "   ", *lines[4:]]))
  with pytest.raises(errors.DataError, match=r"a\.en:4: 'fr' is empty.*'skip'"):  # not known unread
    opened(data, t5).select([5, 3])


def test_other_data_are_another_identity_and_moved_ones_are_not(data, t5, tmp_path):
  first = opened(data, t5).content
  assert f"{COUNT} records of" in first.about
  for side in ("en", "fr"):
    path = data / "wmt14_en_fr" / "train" / f"a.{side}"
    path.write_bytes(path.read_bytes())  # with another time
  assert opened(data, t5).content.digest == first.digest
  path.write_text(path.read_text().replace("chien 4", "chien 5"))
  assert opened(data, t5).content.digest != first.digest


def test_what_is_small_divided_or_has_demonstrations_is_read_whole(data, t5, monkeypatch):
  place = catalog.place("files", str(data))

  def streamed(task: str, split: str) -> bool:
    name = catalog.resolve(task, source=place, vocabulary=t5)
    return (
      reading.stream(
        name, split, LENGTHS, vocabulary=t5, words=open_vocabulary(t5), cache_dir=None, report=print
      )
      is not None
    )

  assert streamed("wmt14_en_fr", "train")
  assert not streamed("wmt14_en_fr_1shot", "train")
  assert not streamed("wmt14_en_fr", "train_strict") and not streamed("wmt14_en_fr", "train_50_0")
  monkeypatch.setattr(record_files, "LARGE", 10_000)
  assert not streamed("wmt14_en_fr", "train")


def test_lines_are_those_of_text_files_and_are_looked_through_once(tmp_path, monkeypatch):
  monkeypatch.setattr(record_files, "_BLOCK", 4)  # a line in several blocks, a letter in two
  path, cache = tmp_path / "lines", tmp_path / "cache"
  path.write_bytes("\ufeffé\r\n\r\nx\u2028y\n\nend".encode())
  opener = record_files.RecordFiles(folder=cache, report=print)
  found = opener.lines(str(path))
  assert [found.read(n).decode() for n in range(len(found))] == [
    "é\r\n",
    "\r\n",
    "x\u2028y\n",
    "\n",
    "end",
  ]
  assert (found.empty, found.first_empty) == (2, 2)
  monkeypatch.setattr(record_files, "_blocks", lambda path: pytest.fail("read again"))
  again = opener.lines(str(path))
  assert again.read(4) == b"end" and again.content == found.content
  path.write_bytes(b"other\n")
  with pytest.raises(errors.DataError, match="lines was changed while it was read"):
    again.read(0)


def test_a_file_that_is_no_text_or_lacks_lines_is_refused_before_anything_is_read(data, t5):
  path = data / "wmt14_en_fr" / "train" / "b.fr"
  text = path.read_bytes()
  path.write_bytes(text + b"le chien\n")
  with pytest.raises(
    errors.DataError, match=r"b\.fr:15 has no partner: .*b\.en ends after line 14"
  ):
    opened(data, t5)
  path.write_bytes(text.replace(b"chien 10", b"chi\xe9n 10"))
  with pytest.raises(errors.DataError, match=r"b\.fr:2 is no UTF-8: byte 0xe9"):
    opened(data, t5)
  path.write_bytes(b"")
  with pytest.raises(errors.DataError, match=r"b\.fr is empty"):
    opened(data, t5)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100, 4097])
def test_an_order_has_every_number_once_and_another_key_gives_another_one(size):
  orders = [
    shuffling.shuffled(np.arange(size), size=size, key=[7, 0, epoch]).tolist() for epoch in (0, 1)
  ]
  assert sorted(orders[0]) == sorted(orders[1]) == list(range(size))
  if size >= 100:
    assert orders[0] != orders[1]
    # Nothing is left of the order of the file.
    assert abs(np.corrcoef(orders[0], np.arange(size))[0, 1]) < 0.3
    assert shuffling.shuffled(np.asarray([9]), size=size, key=[7, 0, 1])[0] == orders[1][9]
