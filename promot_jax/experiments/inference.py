"""Answers to texts that belong to no task, in the order in which they came."""

from collections.abc import Sequence

from flax import nnx

from promot_jax import partitioning
from promot_jax.data.batches import EvalBatches
from promot_jax.decoding import generate as generate_lib
from promot_jax.errors import DataError
from promot_jax.experiments import data
from promot_jax.experiments.runner import Runner
from promot_jax.metrics import postprocess
from promot_jax.token_ids import TokenIds


def answer(
  runner: Runner, model: nnx.Module, texts: Sequence[str], *, prompt_id: int = 0
) -> list[tuple[str, float]]:
  """(answer, score of the decoding strategy) of each text.

  Args:
    runner: gives vocabulary, decoding strategy, lengths and devices.
    model: with the prompt attached or detached, as wanted.
    texts: inputs as a task would render them, without end of sequence or separator.
    prompt_id: row of the prompt bank.

  Raises:
    DataError: a text is longer than the evaluation plan's inputs.
  """
  plan = runner.experiment.evaluation
  limit, longest = plan.feature_lengths["inputs"], plan.feature_lengths["targets"]
  words = data.text_vocabulary(runner.experiment)
  tokens = [words.input_frame.around(words.encode(text)) for text in texts]
  for text, ids in zip(texts, tokens):
    if len(ids) > limit:
      raise DataError(
        f"an input has {len(ids)} tokens and the plan's longest is {limit}: '{text[:60]}...'. "
        "Shorten it, or raise EvaluationPlan.feature_lengths."
      )
  examples = data.in_memory(
    "infer",
    tokens,
    [words.target_frame.around([])] * len(tokens),
    [{"inputs": text, "targets": "", "answers": []} for text in texts],
    prompt_id=prompt_id,
  )
  answers: list[tuple[str, float]] = [("", 0.0)] * len(texts)
  special = TokenIds.of(runner.experiment.backbone)
  for batch, rows in EvalBatches(examples, batch_size=plan.batch_size, special=special):
    source = {name: batch[name] for name in ("encoder_input_tokens", "prompt_ids")}
    result = generate_lib.generate(
      model, runner.place(source), strategy=plan.strategy, max_length=longest
    )
    best, scores = (partitioning.fetch(array)[:, 0] for array in (result.tokens, result.scores))
    for place, row in enumerate(rows):
      if row >= 0:
        text = words.decode(best[place].tolist())
        answers[row] = (postprocess.between_sentinels(text), float(scores[place]))
  return answers
