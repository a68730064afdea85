"""`promot combine`: the weights of several networks made into one checkpoint, array by array.

An operation is a file of `gin/operations` (or `operations` below a search path) that binds OPERATION to a
value of `networks.operations`, `networks.ties` or `experiments.weights_choice`; nothing else lists it.
"""

import dataclasses
import inspect
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from promot_jax.cli import convert, gin_config, gin_files, weights_sources
from promot_jax.cli.flags import Flags
from promot_jax.cli.gin_effect import OPERATION
from promot_jax.cli.recipe_values import near
from promot_jax.cli.screen import aligned, show
from promot_jax.cli.weights_sources import Named
from promot_jax.errors import ConfigError

_FOLDER = "operations"
_TO = ("hf", "t5x", "step")


def run(flags: Flags) -> int:
  """Runs `promot combine`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  if values.to not in _TO:
    raise ConfigError(f"--to={values.to} is not written; use one of {', '.join(_TO)}.")
  convert.require_new(values)  # looked at first, since checkpoints may take minutes to read
  operation = _operation(flags)

  from promot_jax.conversion import combination, formats, model_card

  chooses = not hasattr(operation, "on")
  operation.require(len(values.sources))
  # A run is what its own directory says: the command line's bindings are the operation's.
  plain = dataclasses.replace(flags, gin_files=(), bindings=())
  members = [weights_sources.opened(plain, source) for source in values.sources]
  base = _base(plain, operation, members)
  networks = [each.weights for each in ([base] if base else []) + members]
  combination.check_alike(networks)
  _require_one_vocabulary(members)
  chosen = _choose(operation, members, base, values) if chooses else None
  used = range(len(members)) if chosen is None else chosen.members
  done = operation if chosen is None else chosen.operation
  weights = combination.combined(
    [members[number].weights for number in used],
    done,
    base=base.weights if base and done.based else None,
    finite=not values.allow_nan,
  )
  formats.check(weights, finite=False)  # names and shapes; values are looked at as they are written
  card = model_card.Card(
    operation=repr(done),
    parents=[
      *([_parent(base, role="base")] if base else []),
      *(_parent(member, counts=number in used) for number, member in enumerate(members)),
    ],
    chosen_by="" if chosen is None else repr(operation),
    trials=[] if chosen is None else [dataclasses.asdict(trial) for trial in chosen.trials],
  )
  written = formats.write(
    weights,
    pathlib.Path(values.output),
    formats.Target(
      to=values.to,
      dtype=values.dtype,
      step=values.step,
      t5x_layout=values.t5x_layout,
      scanned=values.scanned,
      texts=model_card.texts(card),
    ),
  )
  _tell(card, written, values)
  return 0


def names(search_paths: str) -> list[str]:
  """The operations that there are."""
  return gin_files.named_below(_FOLDER, search_paths)


def _operation(flags: Flags) -> Any:
  values = flags.values
  known = names(values.gin_search_paths)
  if values.operation not in known:
    raise ConfigError(
      f"--operation={values.operation} is no operation.{near(values.operation, known)} There are"
      f" {', '.join(known)}."
    )
  scanned = gin_config.read(
    [f"{_FOLDER}/{values.operation}.gin", *flags.gin_files],
    flags.bindings,
    search_paths=values.gin_search_paths,
    allow_imports=values.gin_allow_imports,
    what=OPERATION,
  )
  operation = gin_config.build(scanned, what=OPERATION)
  if inspect.isclass(operation) or not all(hasattr(operation, n) for n in ("based", "require")):
    raise ConfigError(
      f"{OPERATION} of {scanned.roots[0]} is {operation!r}, which is no operation on weights, such as"
      " @operations.Mean()."
    )
  return operation


def _base(flags: Flags, operation: Any, members: Sequence[Named]) -> Named | None:
  """What the members began with: as named, or as their runs say."""
  values = flags.values
  if values.base:
    if not operation.based:
      raise ConfigError(
        f"--operation={values.operation} takes no --base; leave it out, or name it among the SOURCES if"
        " it is to count as one."
      )
    return weights_sources.opened(flags, values.base)
  if not operation.based:
    return None

  from promot_jax import paths
  from promot_jax.conversion import formats

  starts = [each.directory.experiment.start for each in members if each.directory is not None]
  if len(starts) < len(members) or len({start.identity() for start in starts}) > 1:
    raise ConfigError(
      f"--operation={values.operation} needs the network that the others began with, and the SOURCES do"
      " not all say the same one; name it with --base=SOURCE."
    )
  start = starts[0]
  # A plain network is read array by array; one that is made of others has to be made.
  stored = start.stored() if hasattr(start, "stored") else None
  return Named(
    weights=formats.Weights(
      leaves=paths.named_leaves(start.build()) if stored is None else stored,
      config=start.backbone,
      where=start.about,
    ),
    identity=start.identity(),
  )


def _require_one_vocabulary(members: Sequence[Named]) -> None:
  """Refuses runs whose tokens are others; of a bare checkpoint only the number of rows is known."""
  known = {
    each.weights.where: each.directory.experiment.start.vocabulary
    for each in members
    if each.directory is not None
  }
  first = next(iter(known), None)
  for where, vocabulary in known.items():
    if first is not None and vocabulary != known[first]:
      raise ConfigError(
        f"'{first}' has vocabulary {known[first]}, and '{where}' {vocabulary}; weights of different"
        " vocabularies cannot be combined."
      )


def _choose(operation: Any, members: Sequence[Named], base: Named | None, values: Any) -> Any:
  """What the choice chose, measured on the validation of the first run."""
  from promot_jax.conversion import combination
  from promot_jax.experiments import weights_choice

  if values.checkpoint != "chosen":
    raise ConfigError(
      f"--operation={values.operation} chooses among the steps that runs chose; leave --checkpoint out."
    )
  for member in members:
    if member.directory is None or member.checkpoint.method is not None:
      raise ConfigError(
        f"--operation={values.operation} chooses by validation, and '{member.weights.where}' is no model"
        " directory of a run that tuned the backbone alone; name those of promot train."
      )
  directories = [member.directory for member in members]
  weights_choice.require_comparable(directories)
  own = [weights_choice.recorded(directory) for directory in directories]
  validation = weights_choice.Validation(directories[0])

  def measure(tried: Any, numbers: Sequence[int]) -> float:
    made = combination.combined(
      [members[number].weights for number in numbers],
      tried,
      base=base.weights if base else None,
    )
    score = validation.score(made.leaves)
    if not values.quiet:
      which = ", ".join(str(number + 1) for number in numbers)
      show(f"tried     {tried!r} of {which}: {score:.6g}", file=sys.stderr)
    return score

  return operation(own, measure)


def _parent(named: Named, *, role: str = "member", counts: bool = True) -> Any:
  from promot_jax.checkpoints import sources
  from promot_jax.conversion import model_card
  from promot_jax.experiments import restored

  where = named.weights.where
  if named.directory is None:
    identity = named.identity or sources.content(where)
    return model_card.Parent(where=where, identity=identity, role=role, counts=counts)
  experiment = named.directory.experiment
  facts = {
    "task": ", ".join(experiment.tasks),
    "data": experiment.source,
    "seed": experiment.seed,
    **_choice_of(named),
  }
  identity = restored.identity(named.directory, named.checkpoint)
  return model_card.Parent(where=where, identity=identity, role=role, counts=counts, facts=facts)


def _choice_of(named: Named) -> dict[str, Any]:
  """Step and validation of a run's checkpoint, where it is the one that its stage chose."""
  from promot_jax.training import choice

  number = named.checkpoint.stages
  if not number:
    return {"checkpoint": named.checkpoint.name}
  marker = choice.marker(named.directory.store(named.directory.experiment.stages[number - 1]))
  step = named.checkpoint.step if marker is None else marker["step"]
  score = choice.score_at((marker or {}).get("history", ()), step)
  found = {"step": step, "score on validation": score}
  return {name: value for name, value in found.items() if value is not None}


def _tell(card: Any, written: pathlib.Path, values: Any) -> None:
  if values.json:
    show(json.dumps({"output": str(written), "format": values.to, **dataclasses.asdict(card)}))
    return
  show(f"{written}: {values.to}, {card.operation}")
  lines = [("", "network", "known of it")]
  for parent in card.parents:
    facts = ", ".join(f"{name} {value}" for name, value in parent.facts.items())
    lines.append((parent.role if parent.counts else "left out", parent.where, facts))
  show(aligned(lines))


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["combine", *sys.argv[1:]]))
