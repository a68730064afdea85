"""Outputs end where transformers' `generate` ends them, whatever the files say about special tokens.

Each test saves a small random model of transformers with settings of its own, lets it generate, and
reads the folder here.  The models have no ties, so tokens are compared one by one.
"""

import json

import numpy as np
import pytest
from flax import nnx

import tiny_transformers
from promot_jax import errors, paths
from promot_jax.checkpoints.huggingface import importer, reader, writer
from promot_jax.decoding.generate import generate
from promot_jax.decoding.strategies import Greedy, TransformersBeam
from promot_jax.networks import backbones
from promot_jax.token_ids import TokenIds

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

VOCABULARY, ENDS, LENGTH = 37, [7, 5, 9], 12
COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 3, "eos_token_id": 7}


MODELS = {
  "t5": {"decoder_start_token_id": 0},
  "bart": {},
  "gpt2": {"n_inner": None},  # whose outputs do not all repeat one token
  "llama": {"num_key_value_heads": 1},
}


def save(kind, folder, **settings):
  """A random model of theirs in `folder`, with these settings in its generation_config.json."""
  torch.manual_seed(5)
  model = tiny_transformers.build(kind, **COMMON, **MODELS[kind]).eval()
  with torch.no_grad():
    for name, weight in model.named_parameters():
      center = 1.0 if (weight.ndim == 1 and "norm" in name) or "ln_" in name else 0.0
      weight.copy_(torch.randn_like(weight) * 0.35 + center)
  for name, value in settings.items():
    setattr(model.generation_config, name, value)
  model.save_pretrained(folder)
  return model


def ours(folder):
  config = importer.config(str(folder))
  leaves = {name: np.asarray(leaf) for name, leaf in importer.open_hf(folder, config).items()}
  return paths.replace_leaves(backbones.build(config, nnx.Rngs(0)), leaves)


def sources():
  return np.random.default_rng(0).integers(10, VOCABULARY, (12, 6)).astype(np.int32)


def to_end(row, ids):
  """Tokens up to the first end, which is among them."""
  return row[: len(ids.before_end(row)) + 1].tolist()


def compare(model, other, strategy, **options):
  """Tokens and scores; returns the lengths."""
  # Without the mask, the id of padding at the end of a source would be taken for padding.
  batch = {"encoder_input_tokens": sources(), "encoder_input_mask": np.ones((12, 6), bool)}
  found = generate(model, batch, strategy=strategy, max_length=LENGTH)
  source = torch.tensor(sources(), dtype=torch.long)
  with torch.no_grad():
    theirs = other.generate(
      source,
      attention_mask=torch.ones_like(source),
      max_new_tokens=LENGTH,
      do_sample=False,
      return_dict_in_generate=True,
      output_scores=True,
      **options,
    )
  skipped = 1 if other.config.is_encoder_decoder else source.shape[1]
  ids = TokenIds.of(model)
  expected = [to_end(row, ids) for row in theirs.sequences.numpy()[:, skipped:]]
  outputs = [to_end(row, ids) for row in np.asarray(found.tokens)[:, 0]]
  assert outputs == expected
  if options.get("num_beams", 1) > 1:
    np.testing.assert_allclose(found.scores[:, 0], theirs.sequences_scores, rtol=1e-3, atol=1e-4)
  return [len(row) for row in outputs]


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_end_at_any_of_three_ends(kind, tmp_path):
  other = save(kind, tmp_path, eos_token_id=None, forced_eos_token_id=None)
  endless = generate(
    ours(tmp_path),
    {"encoder_input_tokens": sources()},
    strategy=TransformersBeam(width=3),
    max_length=LENGTH,
  )
  written, counts = np.unique(np.asarray(endless.tokens), return_counts=True)
  ends = written[np.argsort(-counts)][1:4].tolist()  # by the first all would end at once
  other = save(kind, tmp_path, eos_token_id=ends, pad_token_id=ends[0], forced_eos_token_id=None)
  model = ours(tmp_path)
  assert TokenIds.of(model).ends == tuple(ends)
  lengths = compare(model, other, Greedy())
  options = {"length_penalty": 0.7, "early_stopping": False}
  lengths += compare(model, other, TransformersBeam(width=3, **options), num_beams=3, **options)
  assert min(lengths) < LENGTH


@pytest.mark.parametrize("kind", ["t5", "bart", "llama"])
def test_the_last_token_may_be_forced_to_be_one_of_several(kind, tmp_path):
  other = save(kind, tmp_path, eos_token_id=ENDS, forced_eos_token_id=[5, 9], pad_token_id=1)
  model = ours(tmp_path)
  assert TokenIds.of(model).forced_last == (5, 9)
  compare(model, other, Greedy())
  compare(model, other, TransformersBeam(width=3), num_beams=3)
  tokens = generate(
    model, {"encoder_input_tokens": sources()}, strategy=Greedy(), max_length=1
  ).tokens
  assert set(np.asarray(tokens).ravel().tolist()) == {5}  # the first of equally probable ones


def test_a_t5_begins_with_a_forced_token(tmp_path):
  other = save("t5", tmp_path, forced_bos_token_id=11)
  compare(ours(tmp_path), other, Greedy())


@pytest.mark.parametrize("kind", MODELS)
def test_generation_config_decides_by_what_it_lacks(kind, tmp_path):
  """config.json ends outputs at 7 and, in BART, forces 7; generation_config.json knows neither."""
  saved = save(kind, tmp_path)
  config = json.loads((tmp_path / "config.json").read_text())
  (tmp_path / "config.json").write_text(
    json.dumps({**config, "eos_token_id": 7, "forced_eos_token_id": 7})
  )
  (tmp_path / reader.GENERATION).write_text(json.dumps({"decoder_start_token_id": 0}))
  other = type(saved).from_pretrained(tmp_path).eval()
  model = ours(tmp_path)
  assert TokenIds.of(model).ends == () and TokenIds.of(model).eos == 7
  assert TokenIds.of(model).forced_last is None
  assert set(compare(model, other, Greedy())) == {LENGTH}
  compare(model, other, TransformersBeam(width=2), num_beams=2)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
  "settings",
  [
    {"eos_token_id": ENDS, "forced_eos_token_id": [5, 9], "pad_token_id": 6},
    {"eos_token_id": None, "forced_eos_token_id": None},
    {"eos_token_id": 7},
  ],
  ids=["lists", "nothing", "one"],
)
def test_special_tokens_survive_a_round_trip(kind, settings, tmp_path):
  other = save(kind, tmp_path / "theirs", **settings)
  config = importer.config(str(tmp_path / "theirs"))
  writer.write_hf(tmp_path / "ours", importer.open_hf(tmp_path / "theirs"), config)
  assert importer.config(str(tmp_path / "ours")) == config
  again = type(other).from_pretrained(tmp_path / "ours").generation_config
  names = ("eos_token_id", "forced_eos_token_id", "forced_bos_token_id", "pad_token_id")
  for name in names:
    assert getattr(again, name) == getattr(other.generation_config, name), name


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_id_of_padding_inside_of_an_input_is_a_token(kind, tmp_path):
  """As with an attention mask of ones; rows are padded at the end, and ids alone tell it."""
  other = save(kind, tmp_path)
  pad = other.config.pad_token_id
  rows, target = [[10, pad, 12, 13, pad, 20, 2], [11, 9, pad, 2]], [[9, 20, 31], [30, 8, 14]]
  padded = np.array([row + [pad] * (7 - len(row)) for row in rows], np.int32)
  start = np.full((2, 1), other.config.decoder_start_token_id, np.int32)
  shifted = np.concatenate([start, np.array(target, np.int32)[:, :-1]], axis=1)
  model = ours(tmp_path)
  batch = {"encoder_input_tokens": padded, "decoder_input_tokens": shifted}
  logits = model.logits(model.hidden(batch))
  for row, shift, found in zip(rows, shifted, logits):
    source = torch.tensor([row])
    with torch.no_grad():
      expected = other(
        input_ids=source,
        attention_mask=torch.ones_like(source),
        decoder_input_ids=torch.tensor(shift[None], dtype=torch.long),
      ).logits[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_decoding_that_is_not_followed_is_named_with_its_counterpart(tmp_path):
  save("bart", tmp_path, num_beams=4, no_repeat_ngram_size=3, max_length=14, early_stopping=True)
  line = importer.decoding_note(tmp_path)
  assert "no_repeat_ngram_size=3 (nothing here corresponds to that)" in line
  assert "TransformersBeam(width=4, length_penalty=1.0, early_stopping=True)" in line
  assert "max_length=14" in line


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("eos_token_id", [[7], [5]]),
    ("eos_token_id", "7"),
    ("eos_token_id", []),
    ("eos_token_id", [7, -5]),
    ("forced_bos_token_id", [2.5]),
    ("forced_eos_token_id", []),
    ("forced_eos_token_id", [True]),
    ("decoder_start_token_id", [0, 2]),
    ("pad_token_id", {"id": 1}),
  ],
)
def test_what_is_no_token_is_refused_in_a_sentence(name, value, tmp_path):
  save("bart", tmp_path)
  file = tmp_path / reader.GENERATION
  file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
  with pytest.raises(errors.ConfigError, match=rf"^{reader.GENERATION} has {name}="):
    importer.config(str(tmp_path))


def test_a_forced_token_outside_of_the_vocabulary_is_refused(tmp_path):
  save("bart", tmp_path, forced_bos_token_id=VOCABULARY)
  with pytest.raises(errors.ConfigError, match="forces a token that a vocabulary of 37"):
    importer.config(str(tmp_path))
