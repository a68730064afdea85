"""The T5 vocabulary without TensorFlow, against seqio's and known tokens."""

import http.client

import pytest

from promot_jax import errors
from promot_jax.checkpoints import locations
from promot_jax.data import vocabularies, vocabulary_files
from promot_jax.data.sentencepiece_vocabulary import SentencePiece


@pytest.fixture(scope="module")
def t5(shared_data):
  return SentencePiece(str(shared_data / "vocab" / "t5_spiece.model"))


TEXTS = ["<extra_id_0> True <extra_id_1>", "Translate English to German: À bientôt!", "a\n\n b", ""]


def test_sentinels_are_the_last_tokens_in_descending_order(t5):
  assert t5.size == 32100
  text = "<extra_id_0> <extra_id_1> <extra_id_99>"
  assert t5.encode(text, special_tokens=True) == [32099, 32098, 32000]
  assert max(t5.encode(text)) < 32000  # as a user's text they are characters
  assert t5.decode([32099, 10998, 32098, 1]) == "<extra_id_0> True <extra_id_1>"


def test_tokens_are_seqios(t5):
  seqio = pytest.importorskip("seqio")
  theirs = seqio.SentencePieceVocabulary(t5.file, extra_ids=100)
  assert theirs.vocab_size == t5.size
  for text in TEXTS:
    tokens = t5.encode(text, special_tokens=True)
    assert tokens == list(theirs.encode(text))
    assert t5.decode(tokens) == theirs.decode(theirs.encode(text))


def test_tasks_read_texts_as_inference_does(t5):
  seqio_vocabularies = pytest.importorskip("tasks.vocabularies")
  words = seqio_vocabularies.T5Vocabulary(t5)
  assert (words.vocab_size, words.extra_ids) == (32100, 100)
  for text in TEXTS:
    assert list(words.encode(text)) == words.encode_tf(text).numpy().tolist() == t5.encode(text)


def test_decoding_stops_at_the_end_and_ignores_padding(t5):
  tokens = t5.encode("a cat")
  assert t5.decode([0, *tokens, 1, *tokens]) == "a cat"
  assert t5.decode([*tokens, 0, 0]) == "a cat"
  assert t5.decode([32127]) == t5.decode([2])  # a padded row of the embedding is unknown


def test_a_missing_file_names_the_variable_to_set(monkeypatch, tmp_path):
  monkeypatch.setenv("PROMOT_MT5_VOCABULARY", str(tmp_path / "absent.model"))
  with pytest.raises(errors.ConfigError, match=r"absent.model does not exist.*PROMOT_MT5_VOCAB"):
    vocabularies.open_vocabulary("mt5")
  with pytest.raises(errors.ConfigError, match="'t6' is not known; there are: t5, mt5, hf:FOLDER"):
    vocabularies.open_vocabulary("t6")


def test_a_file_of_another_kind_is_refused(tmp_path):
  file = tmp_path / "wrong.model"
  file.write_bytes(b"not a model at all")
  with pytest.raises(errors.ConfigError, match=r"wrong\.model is not a SentencePiece model"):
    SentencePiece(str(file))


def test_a_bucket_file_is_fetched_once(monkeypatch, tmp_path, shared_data):
  content = (shared_data / "vocab" / "t5_spiece.model").read_bytes()
  asked = []

  class Answer:
    def __enter__(self):
      return self

    def __exit__(self, *error):
      return False

    def read(self):
      return content

  def urlopen(url, timeout):
    asked.append(url)
    return Answer()

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(vocabulary_files.urllib.request, "urlopen", urlopen)
  for _ in range(2):
    assert SentencePiece("gs://bucket/a/b.model").size == 32100
  assert asked == ["https://storage.googleapis.com/bucket/a/b.model"]


@pytest.mark.parametrize("fault", ["cut off", "full disk", "interrupted"])
def test_a_download_that_ends_early_is_said_and_leaves_nothing(monkeypatch, tmp_path, fault):
  class Answer:
    def __enter__(self):
      return self

    def __exit__(self, *error):
      return False

    def read(self):
      if fault == "cut off":
        raise http.client.IncompleteRead(b"abc", 10)
      return b"abc"

  def refuse(*_):
    raise KeyboardInterrupt if fault == "interrupted" else OSError(28, "No space left on device")

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(vocabulary_files.urllib.request, "urlopen", lambda url, timeout: Answer())
  if fault != "cut off":
    monkeypatch.setattr(vocabulary_files.os, "replace", refuse)
  expected = KeyboardInterrupt if fault == "interrupted" else errors.ConfigError
  words = None if fault == "interrupted" else r"could not be fetched.*Copy gs://"
  with pytest.raises(expected, match=words):
    vocabulary_files.local_copy(vocabulary_files.FILES["t5"])
  assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_no_network_is_said_with_what_to_do(monkeypatch, tmp_path):
  def urlopen(url, timeout):
    raise OSError("Name or service not known")

  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.delenv("PROMOT_T5_VOCABULARY", raising=False)
  monkeypatch.setattr(vocabulary_files.urllib.request, "urlopen", urlopen)
  with pytest.raises(errors.ConfigError, match=r"could not be fetched.*PROMOT_T5_VOCABULARY"):
    SentencePiece(vocabulary_files.FILES["t5"])


@pytest.mark.parametrize(
  "name",
  [
    "gs://bucket/../../../../.local/lib/python3/site-packages/run.pth",
    "gs://../../.bashrc",
    "gs:///etc/passwd",
    "gs://bucket//etc/passwd",
    "gs://bucket/./a",
    "gs://bucket",
    "gs://",
  ],
)
def test_a_bucket_file_never_leads_out_of_the_cache(monkeypatch, tmp_path, name):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  monkeypatch.setattr(
    vocabulary_files.urllib.request, "urlopen", lambda *_, **__: pytest.fail("it is fetched")
  )
  with pytest.raises(errors.ConfigError, match="no name of a file in a bucket"):
    vocabularies.digest(f"sentencepiece:{name}")
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["hf:a/b@../../x", "hf:../b@main", "hf:a/..@x", "hf:a/b@c d"])
def test_a_name_of_the_hub_never_leads_out_of_its_cache(monkeypatch, name):
  import huggingface_hub

  monkeypatch.setattr(
    huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("it is fetched")
  )
  with pytest.raises(errors.ConfigError, match=r"does not exist|neither a folder|known"):
    vocabularies.digest(name)
  with pytest.raises(errors.ConfigError):
    locations.fetch_hf(name)
