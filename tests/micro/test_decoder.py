"""The decoder-only micro model: what it is trained on, what ships, and a short run."""

import numpy as np
import pytest

import tasks
from promot_jax.cli.main import main
from promot_jax.micro import decoder_pretraining, evaluation_sets, pretraining, vocabulary
from promot_jax.micro.curriculum import DECODER_LENGTH, DECODER_ROWS, Phase
from promot_jax.networks import micro_model
from promot_jax.networks.network import Network

WORDS = vocabulary.vocabulary()
PHASES = (Phase(steps=9, shots={0: 1, 2: 1}, mixture={"trivia_qa": 0.7, pretraining.TEXT: 0.3}),)


@pytest.fixture(scope="module")
def stream():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(pretraining, "TEXTS", 300)
    patch.setattr(pretraining, "INFERENCE_TEXTS", 300)
    decoder_pretraining._material.cache_clear()
    yield decoder_pretraining.DecoderStream(PHASES, tasks=[tasks.find("trivia_qa")], seed=3)
  decoder_pretraining._material.cache_clear()


def test_rows_are_filled_and_the_same_whatever_was_read_before(stream):
  late, early = stream.batch(7), stream.batch(0)
  again = stream.batch(7)
  assert all(np.array_equal(late[name], again[name]) for name in late)
  assert not np.array_equal(late["decoder_target_tokens"], early["decoder_target_tokens"])
  assert late["encoder_input_tokens"].shape == (DECODER_ROWS, 1)
  assert late["decoder_target_tokens"].shape == (DECODER_ROWS, DECODER_LENGTH - 1)
  assert (late["decoder_target_tokens"] > 0).mean() > 0.95


def test_of_an_episode_the_answers_are_learned_and_the_questions_are_only_read(stream):
  batch = stream.batch(1)
  for row, learned in zip(batch["decoder_target_tokens"], batch["decoder_loss_weights"]):
    words = [WORDS.words[token] for token in row]
    for place, word in enumerate(words):
      if word in ("Q:", "A:", "?"):
        assert not learned[place]
      if place and words[place - 1] == "A:" and word != "</s>":
        assert learned[place]  # the answer of a demonstration
      if place > 1 and words[place - 2 : place] == ["A:", "</s>"]:
        assert learned[place]  # of the query


def test_the_shipped_decoder_answers_behind_a_demonstration():
  network = Network(backbone=micro_model.decoder_config(), checkpoint="micro")
  assert network.identity() == f"micro:{micro_model.digest(network.backbone)}"
  assert network.identity() != Network(backbone=micro_model.config(), checkpoint="micro").identity()
  model = network.build()
  asked = evaluation_sets.evaluation_set(tasks.find("wmt16_en_de"), "test", limit=8)
  for text, targets in zip(asked.inputs, asked.targets):
    source = np.array([[*WORDS.encode(text), vocabulary.EOS]], np.int32)
    target = np.array([[*WORDS.encode(targets[0]), vocabulary.EOS]], np.int32)
    batch = {"encoder_input_tokens": source, "decoder_target_tokens": target}
    written = np.asarray(model.logits(model.hidden(batch))).argmax(-1)
    assert WORDS.decode(written[0]) == targets[0]


def test_the_shipped_decoder_is_small():
  assert micro_model._file(micro_model.decoder_config()).stat().st_size < 8e6


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["promot", "fine_tune", "prompt_tune", "prefix_tune", "lora"])
def test_the_overlay_trains_the_decoder_with_every_kind_of_method(recipe, tmp_path):
  overlays = [
    f"--gin_file={name}" for name in (f"{recipe}_rte.gin", "micro.gin", "micro/decoder.gin")
  ]
  steps = {
    "promot": ("PROMPT", "TRAIN"), "fine_tune": ("TRAIN",), "prompt_tune": ("PROMPT",),
    "prefix_tune": ("PREFIX",), "lora": ("LIGHT",),
  }  # fmt: skip
  few = [f"--gin.{name}_STEPS=2" for name in steps[recipe]]
  flags = ["--gin.TRAIN_EXAMPLES=64", "--gin.VALIDATION_EXAMPLES=16", "--gin.UNSEEN_TASKS=['cb']"]
  limit = "--gin.experiment.EvaluationPlan.limit=8"
  assert main(["train", *overlays, *few, *flags, limit, f"--model_dir={tmp_path}"]) == 0


@pytest.mark.parity
def test_transformers_computes_the_logits_of_the_shipped_decoder(tmp_path):
  torch = pytest.importorskip("torch", reason="needs the [torch] extra")
  transformers = pytest.importorskip("transformers", reason="needs the [torch] extra")
  folder = tmp_path / "decoder"
  assert main(["convert", "micro", str(folder), "--to=hf", "--model=micro_decoder"]) == 0
  theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
  ours = Network(backbone=micro_model.decoder_config(), checkpoint="micro").build()
  ids = [*WORDS.encode("Translate English to German: the boy eats the bird."), vocabulary.EOS]
  target = [*WORDS.encode("der junge der vogel isst."), vocabulary.EOS]
  with torch.no_grad():
    expected = theirs(torch.tensor([[*ids, *target]])).logits[0, len(ids) - 1 : -1].numpy()
  batch = {
    "encoder_input_tokens": np.array([ids], np.int32),
    "decoder_target_tokens": np.array([target], np.int32),
  }
  found = np.asarray(ours.logits(ours.hidden(batch)))[0]
  # float32 on both sides: a few times 1e-5 of the largest logit.
  np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
