"""Our BERT against transformers' BertModel, with random weights that transformers drew and saved."""

import numpy as np
import pytest
from flax import nnx

from promot_jax import paths
from promot_jax.checkpoints import huggingface
from promot_jax.models import scanning
from promot_jax.models.bert import TYPES, Bert

torch = pytest.importorskip("torch", reason="needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")

pytestmark = pytest.mark.parity

VOCABULARY, PAD = 33, 0
SHAPE = {
  "vocab_size": VOCABULARY,
  "hidden_size": 24,
  "num_hidden_layers": 3,
  "num_attention_heads": 3,
  "intermediate_size": 36,
  "max_position_embeddings": 20,
  "type_vocab_size": 2,
}
VARIANTS = {
  "published": {},
  "other": {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3, "type_vocab_size": 3},
}
LENGTHS = [9, 5, 1]


def theirs_of(variant, kind="BertModel", **options):
  torch.manual_seed(0)
  config = transformers.BertConfig(**{**SHAPE, **VARIANTS[variant]})
  model = getattr(transformers, kind)(config, **options).eval()
  with torch.no_grad():
    for name, weight in model.named_parameters():
      if weight.ndim == 1:  # 1 and 0 would hide mistakes
        center = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        weight.copy_(torch.randn_like(weight) * 0.3 + center)
      else:
        weight.copy_(torch.randn_like(weight) * 0.25)
  return model


def ours_of(folder):
  config = huggingface.config(str(folder))
  leaves = huggingface.open_hf(folder, config)
  return paths.replace_leaves(
    Bert(config, nnx.Rngs(0)), {name: np.asarray(leaf) for name, leaf in leaves.items()}
  )


def ragged():
  """Rows of unequal lengths, the second half of each a segment of its own."""
  random = np.random.default_rng(7)
  tokens = random.integers(3, VOCABULARY, (len(LENGTHS), max(LENGTHS))).astype(np.int32)
  tokens[0, 3] = PAD  # inside of a text it is a token like any other
  mask = np.arange(max(LENGTHS)) < np.asarray(LENGTHS)[:, None]
  tokens = np.where(mask, tokens, PAD)
  types = ((np.arange(max(LENGTHS)) >= 4) & mask).astype(np.int32)
  return {"encoder_input_tokens": tokens, "encoder_input_mask": mask, TYPES: types}


def their_run(model, batch):
  output = model(
    input_ids=torch.tensor(batch["encoder_input_tokens"], dtype=torch.long),
    attention_mask=torch.tensor(batch["encoder_input_mask"], dtype=torch.long),
    token_type_ids=torch.tensor(batch[TYPES], dtype=torch.long),
  )
  pooled = output.pooler_output
  return (
    output.last_hidden_state.detach().numpy(),
    None if pooled is None else pooled.detach().numpy(),
  )


@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_of_a_ragged_batch_and_the_pooler_are_those_of_transformers(
  variant, tmp_path
):
  theirs = theirs_of(variant)
  theirs.save_pretrained(tmp_path)
  batch = ragged()
  expected, pooled = their_run(theirs, batch)
  model = ours_of(tmp_path)
  for form in (model, scanning.stack_layers(model)):
    hidden, mask = form.encode(batch)
    np.testing.assert_array_equal(mask, batch["encoder_input_mask"])
    np.testing.assert_allclose(hidden[mask], expected[np.asarray(mask)], atol=2e-5)
    np.testing.assert_allclose(form.pooled(hidden[:, 0]), pooled, atol=2e-5)


def test_an_encoder_is_read_out_of_a_model_with_heads_and_without_a_pooler(tmp_path):
  theirs = theirs_of("published", "BertForMaskedLM")
  theirs.save_pretrained(tmp_path)
  model = ours_of(tmp_path)
  assert not model.config.pooler
  batch = ragged()
  hidden, mask = model.encode(batch)
  expected, _ = their_run(theirs.bert, batch)
  np.testing.assert_allclose(hidden[mask], expected[np.asarray(mask)], atol=2e-5)


def test_what_is_written_is_read_by_transformers_as_the_same_network(tmp_path):
  theirs = theirs_of("other")
  theirs.save_pretrained(tmp_path / "theirs")
  model = ours_of(tmp_path / "theirs")
  huggingface.write_hf(tmp_path / "ours", paths.named_leaves(model), model.config)
  again = transformers.BertModel.from_pretrained(tmp_path / "ours").eval()
  batch = ragged()
  found, found_pooled = their_run(again, batch)
  expected, pooled = their_run(theirs, batch)
  np.testing.assert_array_equal(found, expected)
  np.testing.assert_array_equal(found_pooled, pooled)
