"""`promot infer`: questions in, JSON lines out, in order; a repeated command goes on where it was.

Each output line is the input line with `prediction` and `score` added, also where an over-long one
was skipped: both are null there, so that lines correspond.  What was made with which
checkpoint is in `OUTPUT.meta.json`; a command that would mix two models, or the answers to two inputs,
in one file is refused (`answers.py`).  A pipe or the screen takes answers too; there nothing goes on.
"""

import functools
import json
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax.cli import answers, cluster, directory, questions
from promot_jax.cli.eval import bank_row, method_state
from promot_jax.cli.flags import Flags
from promot_jax.cli.questions import Questions
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError, DataError

_BATCHES = 8  # batches between two writes
_NAMED = 10  # line numbers in a message


def run(flags: Flags) -> int:
  """Runs `promot infer`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  output = questions.output(values)
  if values.prediction_field == values.score_field:
    raise ConfigError(f"--prediction_field and --score_field are both '{values.score_field}'.")
  cluster.connect(values)

  from promot_jax import hosts

  records = hosts.first(lambda: questions.records(values))
  runners = directory.runners(flags)
  if len(runners) > 1:
    raise ConfigError(
      f"{values.model_dir} has several experiments; name one: "
      + ", ".join(f"--model_dir={runner.folder}" for runner in runners)
    )
  experiment = runners[0].experiment
  files = experiment.files_of(values.attach_task or experiment.tasks[0])
  asked = hosts.first(lambda: questions.asked(values, records, files))
  with hosts.held_by_first(lambda: answers.hold(output)):
    summary = _continued(values, runners[0], asked, output)
  if hosts.is_first():
    screen = sys.stderr if answers.is_standard_output(output) else sys.stdout
    show(json.dumps(summary) if values.json else f"{output}: {len(asked)} lines", file=screen)
  return 0


def _continued(values, runner, asked: Questions, output: pathlib.Path) -> dict[str, Any]:
  """Answers what is not answered; gives what was made, and with what."""
  from promot_jax import hosts
  from promot_jax.experiments import inference, origin

  name, stages, step, state, row = cluster.together(lambda: _wanted(values, runner, asked))
  plan, tuned = runner.experiment.evaluation, _is_tuned(stages, state)
  words = inference.labels(runner, values.attach_task) if values.probabilities else ()
  made_with = {
    "experiment": runner.experiment.name,
    "checkpoint": name,
    "weights": runner.identity(stages, step),
    "method": f"{state} {values.attach_task}" if values.attach_task else state,
    "strategy": repr(plan.strategy),
    "longest answer": str(plan.feature_lengths["targets"]),
    **cluster.together(lambda: inference.made_with(runner, tuned=tuned)),
    "field": asked.made_by,
    "added fields": f"{values.prediction_field}, {values.score_field}",
    "too long": values.too_long,
    "probabilities": ", ".join(words) or "none",
  }
  # By the content of the files: another model may have come to lie under the same name.
  if start := origin.of_start(runner.experiment).part("start weights"):
    made_with["start weights"] = str(start)
  inputs = cluster.together(lambda: _inputs(values, runner, asked, tuned))
  lines = [(each.where, each.text, each.record) for each in asked.lines]
  given = cluster.together(
    lambda: inference.features(runner, lines, tuned=tuned, task=values.attach_task)
  )
  made = answers.made_with(made_with)
  whole = values.limit is None
  content = [question.record for question in asked.lines]
  done = hosts.first(lambda: answers.begin(output, content, made, whole=whole))
  if not values.quiet and hosts.is_first():
    form = ", plain text: an answer ends with its line"
    form = form if inference.ends_with_line(runner, tuned=tuned) else ""
    show(
      f"{questions.name(values)} {len(asked)} lines · done before {done} · {max(0, len(asked) - done)} to go "
      f"· {name}, method {state}{form}",
      file=sys.stderr,
    )
  if done < len(asked):
    _answer(runner, (stages, step, state, row), asked, inputs, given, words, done, output, values)
  return {
    "input": questions.name(values),
    "output": str(output),
    "lines": len(asked),
    **made_with,
  }


def _inputs(values, runner, asked: Questions, tuned: bool) -> list[Any]:
  """Tokens of each text, at most as many as the plan allows; None for a line that is skipped."""
  from promot_jax.experiments import inference

  tokens, limit = inference.encode(runner, [each.text for each in asked.lines], tuned=tuned)
  long = [place for place, ids in enumerate(tokens) if len(ids) > limit]
  if long and values.too_long == "refuse":
    numbers = ", ".join(str(asked.lines[place].number) for place in long[:_NAMED])
    more = f" and {len(long) - _NAMED} more" if len(long) > _NAMED else ""
    first = long[0]
    raise DataError(
      f"{questions.name(values)}:{asked.lines[first].number} has {len(tokens[first])} tokens, and the longest input of"
      f" this model's evaluation plan is {limit}. Too long: line {numbers}{more}. Shorten them, pass"
      " --too_long=cut or --too_long=skip, or raise EvaluationPlan.feature_lengths."
    )
  inputs: list[Any] = list(tokens)
  for place in long:
    skipped = values.too_long == "skip"
    inputs[place] = None if skipped else inference.cut(runner, tokens[place], limit, tuned=tuned)
  if long and not values.quiet and cluster.number() == 0:
    show(
      f"{len(long)} of {len(asked)} lines have more than {limit} tokens: {values.too_long}",
      file=sys.stderr,
    )
  return inputs


def _wanted(values, runner, asked: Questions):
  """(name, stages, step, state of the method, row of its bank) that the flags ask for."""
  if values.method:
    runner.use_method(values.method)
  name, stages, step = runner.checkpoint(values.checkpoint)
  state = method_state(values.attach, runner, tuned=asked.of_template, stages=stages)
  return name, stages, step, state, bank_row(values.attach_task, runner, state)


def _is_tuned(stages: int, state: str) -> bool:
  """Whether the model reads texts as it was tuned to."""
  return stages > 0 and state != "detached"


def _answer(
  runner,
  checkpoint,
  asked: Questions,
  inputs,
  given,
  words,
  done: int,
  output: pathlib.Path,
  values,
) -> None:
  from promot_jax import hosts
  from promot_jax.experiments import inference

  stages, step, state, row = checkpoint
  model = runner.model_of(stages, step)
  if state == "detached":
    model = runner.experiment.method.detach(model)
  options = {"tuned": _is_tuned(stages, state), "bank_row": row}
  size = _BATCHES * runner.experiment.evaluation.batch_size
  start = time.monotonic()
  for first in range(done, len(asked), size):
    chunk, tokens = asked.lines[first : first + size], inputs[first : first + size]
    texts = [each.text for each, ids in zip(chunk, tokens) if ids is not None]
    wanted = [ids for ids in tokens if ids is not None]
    options["given"] = given.of([n for n, ids in enumerate(tokens, first) if ids is not None])
    found = iter(inference.answer(runner, model, wanted, **options) if wanted else [])
    answered = [(None, None) if ids is None else next(found) for ids in tokens]
    added = [_added(each, values) for each in answered]
    if words:
      shares = iter(
        inference.probabilities(runner, model, texts, wanted, words, **options) if wanted else []
      )
      for fields, ids in zip(added, tokens):
        fields[questions.PROBABILITIES] = None if ids is None else next(shares)
    lines = _lines(chunk, added)
    hosts.only_first(functools.partial(answers.append, output, lines))
    runner.shared.stop.nothing_to_save = False  # from now on, what is begun is finished
    if first + size < len(asked):
      runner.shared.stop_if_asked()
    if not values.quiet and hosts.is_first():
      rate = (first + len(chunk) - done) / max(time.monotonic() - start, 1e-3)
      show(f"{first + len(chunk)}/{len(asked)}  {rate:.3g} lines/s", file=sys.stderr)


def _added(answered: tuple[str | None, float | None], values) -> dict[str, Any]:
  """(answer, score) under their names; a score that is no number is null."""
  text, score = answered
  finite = score if score is not None and math.isfinite(score) else None
  return {values.prediction_field: text, values.score_field: finite}


def _lines(asked: Sequence[questions.Question], added: Sequence[Mapping[str, Any]]) -> str:
  """The records with what is added to each."""
  return "".join(
    json.dumps({**each.record, **fields}, ensure_ascii=False, allow_nan=False) + "\n"
    for each, fields in zip(asked, added)
  )


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["infer", *sys.argv[1:]]))
