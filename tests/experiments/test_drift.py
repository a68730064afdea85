"""How far a model is from the pretrained one: against numpy on the logits of the two, and in a report."""

import dataclasses

import numpy as np
import pytest

import tiny_experiments
from promot_jax.errors import ConfigError
from promot_jax.evaluation import costs, runs
from promot_jax.evaluation.records import RunRecord, StageRecord, TaskResult
from promot_jax.evaluation.results import ResultStore
from promot_jax.experiments import drift, shapes
from promot_jax.experiments.experiment import EvaluationPlan
from promot_jax.experiments.from_pretrained import FromPretrained
from promot_jax.micro import held_out_text, pretraining
from promot_jax.micro.vocabulary import vocabulary
from tiny_models import batch_of, logits, tiny


def log_softmax(values):
  values = np.asarray(values, np.float64)
  return values - np.log(np.exp(values).sum(-1, keepdims=True))


def test_divergence_and_perplexity_are_numpys_means_over_target_tokens():
  tuned, start = tiny("t5", seed=1), tiny("t5")
  batches = [batch_of(start, seed=2), batch_of(start, seed=3)]
  for batch in batches:  # padding counts nothing
    batch["decoder_loss_weights"] = np.asarray([[1, 1, 0, 0], [1, 1, 1, 1]], np.float32)
  found = drift.divergences(tuned, start, lambda: batches)
  apart, reverse, entropy, tokens = 0.0, 0.0, 0.0, 0.0
  for batch in batches:
    p, q = (log_softmax(logits(model, batch)) for model in (tuned, start))
    weights = np.asarray(batch["decoder_loss_weights"])
    apart += ((np.exp(p) * (p - q)).sum(-1) * weights).sum()
    reverse += ((np.exp(q) * (q - p)).sum(-1) * weights).sum()
    of_targets = np.take_along_axis(p, batch["decoder_target_tokens"][..., None], -1)[..., 0]
    entropy -= (of_targets * weights).sum()
    tokens += weights.sum()
  assert tokens == found.tokens
  assert found.divergence == pytest.approx(apart / tokens, rel=1e-4)
  assert found.reverse == pytest.approx(reverse / tokens, rel=1e-4)
  assert found.divergence != pytest.approx(found.reverse, rel=1e-3)
  assert drift.perplexity(tuned, batches) == pytest.approx(np.exp(entropy / tokens), rel=1e-4)


def test_a_model_has_no_divergence_from_itself():
  start = tiny("t5")
  batch = {**batch_of(start), "decoder_loss_weights": np.ones((2, 4), np.float32)}
  found = drift.divergences(start, start, lambda: [batch])
  assert (found.divergence, found.reverse) == (0.0, 0.0)


def test_text_of_the_world_is_none_that_its_models_were_pretrained_on(monkeypatch):
  monkeypatch.setattr(pretraining, "TEXTS", 300)
  monkeypatch.setattr(held_out_text, "MOST", 40)
  held_out_text.texts.cache_clear()
  try:
    found = held_out_text.texts()
    known = {text for text, _ in pretraining.texts_with_gaps(0)} | set(held_out_text._of_decoders())
    assert len(set(found)) == 40 and not known & set(found)
    words = vocabulary()
    for text, (before, after) in zip(found, held_out_text.pairs(5, gaps=False)):
      assert before == [1] and words.decode(after) == text
    for text, (gapped, gaps) in zip(found, held_out_text.pairs(5, gaps=True)):
      sentinels = {words.sentinel(number) for number in range(8)}
      kept = [token for token in (*gapped, *gaps) if token not in sentinels and token != 1]
      assert sorted(kept) == sorted(words.encode(text)) and gapped[-1] == gaps[-1] == 1
    assert held_out_text.pairs(3, gaps=True) == held_out_text.pairs(5, gaps=True)[:3]
  finally:
    held_out_text.texts.cache_clear()


def test_text_that_cannot_be_had_is_refused_before_anything_is_read():
  def made(text, **changes):
    plan = EvaluationPlan(unseen=(), from_pretrained=FromPretrained(text=text))
    return tiny_experiments.experiment(evaluation=plan, **changes)

  with pytest.raises(ConfigError, match="'nothing'"):
    shapes.check(made("nothing"))
  with pytest.raises(ConfigError, match=r"is text of the built-in world .* source 'tfds'"):
    shapes.check(dataclasses.replace(made("micro"), source="tfds"))
  with pytest.raises(ConfigError, match=r"limit=0 must be a finite number at least 1"):
    FromPretrained(limit=0)


def record(method, drift, **changes):
  given = {
    "method": method,
    "trained_on": "none" if method == "pretrained" else "rte",
    "selected": "model",
    "backbone": "micro",
    "parameters": 100,
    "data": "micro",
    "unseen": ["cb"],
    "drift": drift,
  }
  return RunRecord(**{**given, **changes})


def test_a_report_has_the_figures_of_each_row_with_the_method_off_and_on(tmp_path):
  stage = StageRecord(name="model", trained=100, backbone=100)
  for name, each in {
    "pretrained": record("pretrained", {"none": {"divergence": 0.0, "perplexity": 3.25}}),
    "one": record("fine_tuning", {"none": {"divergence": 1.0}}, stages=(stage,), seed=1),
    "two": record("fine_tuning", {"none": {"divergence": 2.0}}, stages=(stage,), seed=2),
    "prompt": record(
      "prompt_tuning",
      {
        "on": {"divergence": 0.5, "perplexity": 9.0},
        "off": {"divergence": 0.0, "perplexity": 3.25},
      },
      stages=(stage,),
      parameters=110,
    ),
  }.items():
    store = ResultStore(tmp_path / name)
    result = TaskResult(
      task="cb", shots=1, method="none", metric="accuracy", scores={"accuracy": 50.0}, count=4
    )
    store.write("model", result)
    store.write_run(each)
  (group,) = runs.group(runs.collect([tmp_path]))
  table = costs.cost_table(group)
  found = {
    row.label: {
      (column.group, column.header): cell.text()
      for column, cell in zip(table.columns, row.cells, strict=True)
      if cell
    }
    for row in table.rows
  }
  kl, text = "KL from pretrained", "Perplexity"
  assert found["Pretrained"][kl, "off"] == "0.000" and found["Pretrained"][text, "off"] == "3.250"
  assert found["Standard fine-tuning"][kl, "off"] == "1.500 ±0.707"
  assert (text, "off") not in found["Standard fine-tuning"]
  assert (
    found["Prompt tuning"][kl, "on"] == "0.500" and found["Prompt tuning"][kl, "off"] == "0.000"
  )
  assert found["Prompt tuning"]["Parameters of a model", "/ pretrained"] == "1.100"
  assert any("the pretrained model has a KL of 0" in note for note in table.notes)
