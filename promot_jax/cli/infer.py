"""`promot infer`: JSON lines in, JSON lines out, in order; a repeated command goes on where it was.

Each output line is the input line with `prediction` and `score` added.  What was made with which
checkpoint is in `OUTPUT.meta.json`; a command that would mix two models, or the answers to two inputs,
in one file is refused (`answers.py`).
"""

import functools
import json
import pathlib
import sys
import time
from typing import Any

from promot_jax.cli import answers, cluster, directory
from promot_jax.cli.eval import prompt_row, prompt_state
from promot_jax.cli.flags import Flags
from promot_jax.errors import CannotWrite, ConfigError, DataError

_BATCHES = 8  # batches between two writes


def run(flags: Flags) -> int:
  """Runs `promot infer`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  source = pathlib.Path(values.input)
  if not values.output:
    raise ConfigError("no --output given: the JSON-lines file to write.")
  output = pathlib.Path(values.output)
  if output.resolve() == source.resolve():
    raise ConfigError(f"--output={output} is the input itself; give another file.")
  cluster.connect(values)

  from promot_jax import hosts

  records = hosts.first(lambda: _begin(source, output, values))
  runners = directory.runners(flags)
  if len(runners) > 1:
    raise ConfigError(
      f"{values.model_dir} has several experiments; name one: "
      + ", ".join(f"--model_dir={runner.folder}" for runner in runners)
    )
  with hosts.held_by_first(lambda: answers.hold(output)):
    summary = _continued(values, runners[0], records, source, output)
  if hosts.is_first():
    print(json.dumps(summary) if values.json else f"{output}: {len(records)} lines")
  return 0


def _continued(
  values, runner, records: list[dict], source: pathlib.Path, output: pathlib.Path
) -> dict[str, Any]:
  """Answers what is not answered; gives what was made, and with what."""
  from promot_jax import hosts

  name, stages, step, prompt, row = cluster.together(lambda: _wanted(values, runner))
  plan = runner.experiment.evaluation
  made_with = {
    "experiment": runner.experiment.name,
    "checkpoint": name,
    "weights": runner.identity(stages, step),
    "prompt": f"{prompt} {values.prompt_task}" if values.prompt_task else prompt,
    "strategy": repr(plan.strategy),
    "longest answer": str(plan.feature_lengths["targets"]),
    "vocabulary": runner.experiment.vocabulary,
    "field": values.field,
  }
  made = answers.made_with(made_with)
  whole = values.limit is None
  done = hosts.first(lambda: answers.begin(output, records, made, whole=whole))
  if not values.quiet and hosts.is_first():
    print(
      f"{source} {len(records)} lines · done before {done} · {max(0, len(records) - done)} to go "
      f"· {name}, prompt {prompt}",
      file=sys.stderr,
    )
  if done < len(records):
    _answer(runner, (stages, step, prompt, row), records, done, output, values)
  return {"input": str(source), "output": str(output), "lines": len(records), **made_with}


def _begin(source: pathlib.Path, output: pathlib.Path, values) -> list[dict]:
  """The records to answer, once it is known that answers can be written."""
  records = _records(source, values.field)[: values.limit]
  _check_writable(output)
  return records


def _wanted(values, runner):
  """(name, stages, step, prompt state, prompt row) that the flags ask for."""
  if values.method:
    runner.use_method(values.method)
  name, stages, step = runner.checkpoint(values.checkpoint)
  prompt = prompt_state(values.prompt, runner, tuned=False, stages=stages)
  return name, stages, step, prompt, prompt_row(values.prompt_task, runner, prompt)


def _answer(runner, checkpoint, records, done: int, output: pathlib.Path, values) -> None:
  from promot_jax import hosts
  from promot_jax.experiments import inference

  stages, step, prompt, row = checkpoint
  model = runner.model_of(stages, step)
  if prompt == "detached":
    model = runner.experiment.method.detach(model)
  size = _BATCHES * runner.experiment.evaluation.batch_size
  start = time.monotonic()
  for first in range(done, len(records), size):
    chunk = records[first : first + size]
    texts = [record[values.field] for record in chunk]
    found = inference.answer(runner, model, texts, prompt_id=row)
    hosts.only_first(functools.partial(answers.append, output, _lines(chunk, found)))
    runner.shared.stop.nothing_to_save = False  # from now on, what is begun is finished
    if first + size < len(records):
      runner.shared.stop_if_asked()
    if not values.quiet and hosts.is_first():
      rate = (first + len(chunk) - done) / (time.monotonic() - start)
      print(f"{first + len(chunk)}/{len(records)}  {rate:.1f} lines/s", file=sys.stderr)


def _lines(records: list[dict], answered: list[tuple[str, float]]) -> str:
  return "".join(
    json.dumps({**record, "prediction": text, "score": score}, ensure_ascii=False) + "\n"
    for record, (text, score) in zip(records, answered)
  )


def _records(path: pathlib.Path, field: str) -> list[dict]:
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise ConfigError(f"--input={path} cannot be read: {error}.") from None
  records = []
  for number, line in enumerate(text.splitlines(), 1):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except ValueError as error:
      raise DataError(f"{path}:{number} is no JSON: {error}.") from None
    if not isinstance(record, dict) or not isinstance(record.get(field), str):
      found = ", ".join(record) if isinstance(record, dict) else type(record).__name__
      raise DataError(
        f"{path}:{number} has no text in field '{field}' (it has: {found}). Use --field=NAME."
      )
    records.append(record)
  if not records:
    raise DataError(f"{path} has no line to answer.")
  return records


def _check_writable(output: pathlib.Path) -> None:
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a"):
      pass
  except OSError as error:
    raise CannotWrite(f"--output={output} cannot be written: {error.strerror}.") from None


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["infer", *sys.argv[1:]]))
