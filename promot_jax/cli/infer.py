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

  # The questions come before the model: whether they can be read is known at once.
  records = hosts.first(lambda: questions.records(values))
  directories = directory.opened(flags)
  if len(directories) > 1:
    raise ConfigError(
      f"{values.model_dir} has several experiments; name one: "
      + ", ".join(f"--model_dir={opened.folder}" for opened in directories)
    )
  experiment = directories[0].experiment
  files = experiment.files_of(values.attach_task or experiment.tasks[0])
  asked = hosts.first(lambda: questions.asked(values, records, files))
  # Of the file of answers, not of the model directory: several commands may ask one model.
  with hosts.held_by_first(lambda: answers.hold(output)):
    summary = _continued(values, directories[0], asked, output)
  if hosts.is_first():
    # Standard output holds answers alone, so that a pipe gets JSON lines and nothing else.
    screen = sys.stderr if answers.is_standard_output(output) else sys.stdout
    show(json.dumps(summary) if values.json else f"{output}: {len(asked)} lines", file=screen)
  return 0


def _continued(values, opened, asked: Questions, output: pathlib.Path) -> dict[str, Any]:
  """Answers what is not answered; gives what was made, and with what."""
  from promot_jax import hosts
  from promot_jax.experiments import classes, free_texts, origin, restored
  from promot_jax.experiments.restored import Restored

  experiment = opened.experiment
  checkpoint, state, row = cluster.together(lambda: _wanted(values, opened, asked))
  tuned = checkpoint.tuned and state != "detached"
  form = cluster.together(
    lambda: free_texts.form(experiment, tuned=tuned, bank_row=row, stop=values.stop)
  )
  told = None
  if state == "attached":
    told = cluster.together(
      lambda: classes.of_checkpoint(experiment, checkpoint, opened.session.reader)
    )
  labels: Sequence[str] = ()
  if values.probabilities:
    labels = told.answers if told else free_texts.labels(experiment, values.attach_task)
  made_with = {
    "experiment": experiment.name,
    "checkpoint": checkpoint.name,
    "weights": restored.identity(opened, checkpoint),
    "method": f"{state} {values.attach_task}" if values.attach_task else state,
    **cluster.together(lambda: free_texts.made_with(experiment, tuned=tuned, stop=values.stop)),
    **({"strategy": f"the most probable class of {told.head}"} if told else {}),
    "field": asked.made_by,
    "added fields": f"{values.prediction_field}, {values.score_field}",
    "too long": values.too_long,
    "probabilities": ", ".join(labels) or "none",
  }
  # By the content of the files: another model may have come to lie under the same name.
  if start := origin.of_start(experiment).part("start weights"):
    made_with["start weights"] = str(start)
  # All lines are tokenized before the first answer: one that is too long ends the command at its
  # start.
  inputs = cluster.together(lambda: _inputs(values, form, asked))
  lines = [(each.where, each.text, each.record) for each in asked.lines]
  given = cluster.together(
    lambda: free_texts.features(
      experiment,
      checkpoint,
      lines,
      form=form,
      attached=state == "attached",
      task=values.attach_task,
    )
  )
  made = answers.made_with(made_with)
  whole = values.limit is None
  content = [question.record for question in asked.lines]
  # Process 0 has the file; all of them must leave out the same lines.
  done = hosts.first(lambda: answers.begin(output, content, made, whole=whole))
  if not values.quiet and hosts.is_first():
    ends = ", an answer ends with its line" if form.ends_with_line else ""
    show(
      f"{questions.name(values)} {len(asked)} lines · done before {done} · {max(0, len(asked) - done)} to go "
      f"· {checkpoint.name}, method {state}{ends}",
      file=sys.stderr,
    )
  # Weights are restored only where a line is left.
  if done < len(asked):
    model = Restored(opened).model(checkpoint)
    if state == "detached":
      model = checkpoint.method.detach(model)
    _answer(opened, form, model, asked, inputs, given, told, labels, done, output, values)
  return {
    "input": questions.name(values),
    "output": str(output),
    "lines": len(asked),
    **made_with,
  }


def _inputs(values, form, asked: Questions) -> list[Any]:
  """Tokens of each text, at most as many as the plan allows; None for a line that is skipped."""
  from promot_jax.inference import answering

  tokens = answering.encode(form, [each.text for each in asked.lines])
  limit = form.longest_input
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
    inputs[place] = None if skipped else answering.cut(form, tokens[place])
  if long and not values.quiet and cluster.number() == 0:
    show(
      f"{len(long)} of {len(asked)} lines have more than {limit} tokens: {values.too_long}",
      file=sys.stderr,
    )
  return inputs


def _wanted(values, opened, asked: Questions):
  """(checkpoint, state of the method, row of its bank) that the flags ask for."""
  from promot_jax.experiments import checkpoint_names

  checkpoint = checkpoint_names.named(opened, values.checkpoint, method_file=values.method)
  state = method_state(values.attach, checkpoint, tuned=asked.of_template)
  row = bank_row(values.attach_task, opened.experiment, checkpoint.method, state)
  return checkpoint, state, row


def _answer(
  opened,
  form,
  model,
  asked: Questions,
  inputs,
  given,
  told,
  labels,
  done: int,
  output: pathlib.Path,
  values,
) -> None:
  from promot_jax import hosts
  from promot_jax.inference import answering

  # Several batches between two writes: a longer list is sorted by length with less padding.
  size = _BATCHES * form.batch_size
  start = time.monotonic()
  for first in range(done, len(asked), size):
    chunk, tokens = asked.lines[first : first + size], inputs[first : first + size]
    texts = [each.text for each, ids in zip(chunk, tokens) if ids is not None]
    wanted = [ids for ids in tokens if ids is not None]
    own = given.of([n for n, ids in enumerate(tokens, first) if ids is not None])
    shared = {"given": own, "place": opened.place}
    answered: Sequence[tuple[str, float]] = []
    shares: Sequence[Mapping[str, float]] = []
    if wanted and told:
      shares = answering.of_classes(form, model, wanted, told.answers, **shared)
      answered = [_most_probable(each) for each in shares]
    elif wanted:
      answered = answering.answer(form, model, wanted, first=first, **shared)
      if labels:
        shares = answering.probabilities(form, model, texts, wanted, labels, **shared)
    # Skipped lines have no answer, so answers are dealt out along the lines that have tokens.
    left, parts = iter(answered), iter(shares)
    added = [_added((None, None) if ids is None else next(left), values) for ids in tokens]
    if labels:
      for fields, ids in zip(added, tokens):
        fields[questions.PROBABILITIES] = None if ids is None else next(parts)
    lines = _lines(chunk, added)
    hosts.only_first(functools.partial(answers.append, output, lines))
    opened.session.stop.nothing_to_save = False  # from now on, what is begun is finished
    # After the last write there is nothing to stop any more.
    if first + size < len(asked):
      opened.session.stop_if_asked()
    if not values.quiet and hosts.is_first():
      rate = (first + len(chunk) - done) / max(time.monotonic() - start, 1e-3)
      show(f"{first + len(chunk)}/{len(asked)}  {rate:.3g} lines/s", file=sys.stderr)


def _most_probable(shares: Mapping[str, float]) -> tuple[str, float]:
  """(answer of the most probable class, its log p)."""
  best = max(shares, key=shares.__getitem__)
  return best, math.log(shares[best])


def _added(answered: tuple[str | None, float | None], values) -> dict[str, Any]:
  """(answer, score) under their names; a score that is no number is null."""
  text, score = answered
  # JSON has no NaN and no infinity.
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
