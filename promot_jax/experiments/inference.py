"""Answers to texts that belong to no task, in the order in which they came."""

from collections.abc import Sequence

import numpy as np
from flax import nnx

from promot_jax.data.batches import EvalBatches
from promot_jax.decoding import generate as generate_lib
from promot_jax.errors import DataError
from promot_jax.experiments import data
from promot_jax.experiments.execute import Runner
from promot_jax.metrics import postprocess

_EOS = 1


def answer(
  runner: Runner, model: nnx.Module, texts: Sequence[str], *, prompt_id: int = 0
) -> list[tuple[str, float]]:
  """(answer, score of the decoding strategy) of each text.

  Args:
    runner: gives vocabulary, decoding strategy, lengths and devices.
    model: with the prompt attached or detached, as wanted.
    texts: inputs as a task would render them, without the end of sequence.
    prompt_id: row of the prompt bank.

  Raises:
    DataError: a text is longer than the evaluation plan's inputs.
  """
  plan = runner.experiment.evaluation
  limit, longest = plan.feature_lengths["inputs"], plan.feature_lengths["targets"]
  words = data.text_vocabulary(runner.experiment)
  tokens = [np.asarray([*words.encode(text), _EOS], np.int32) for text in texts]
  for text, ids in zip(texts, tokens):
    if len(ids) > limit:
      raise DataError(
        f"an input has {len(ids)} tokens and the plan's longest is {limit}: '{text[:60]}...'. "
        "Shorten it, or raise EvaluationPlan.feature_lengths."
      )
  examples = data.in_memory(
    "infer",
    tokens,
    [np.asarray([_EOS], np.int32)] * len(tokens),
    [{"inputs": text, "targets": "", "answers": []} for text in texts],
    prompt_id=prompt_id,
  )
  answers: list[tuple[str, float]] = [("", 0.0)] * len(texts)
  for batch, rows in EvalBatches(examples, batch_size=plan.batch_size):
    source = {name: batch[name] for name in ("encoder_input_tokens", "prompt_ids")}
    result = generate_lib.generate(
      model, runner.place(source), strategy=plan.strategy, max_length=longest
    )
    best, scores = np.asarray(result.tokens)[:, 0], np.asarray(result.scores)[:, 0]
    for place, row in enumerate(rows):
      if row >= 0:
        text = words.decode(best[place].tolist())
        answers[row] = (postprocess.between_sentinels(text), float(scores[place]))
  return answers
