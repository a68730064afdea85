"""`promot train`: runs the experiment or comparison of a gin file, once or with each of several seeds, or prints its plan."""

import functools
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence

from promot_jax.cli import cluster, config_record, gin_config, gin_effect, gin_scan
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError


def run(flags: Flags) -> int:
  """Runs `promot train`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  if values.seed is not None and values.seeds:
    raise ConfigError(
      f"--seed={values.seed} and --seeds={','.join(map(str, values.seeds))} say both which seed runs; give one"
      " of them."
    )
  scanned = _read(flags)
  # Files are read before and values made after: a typing mistake need not wait for other hosts.
  cluster.connect(values)
  seeds = _seeds(scanned)
  if values.dry_run:
    experiment = cluster.together(lambda: gin_config.build(scanned))
    lines = [*_header(scanned), *_plan(experiment, verbose=values.verbose)]
    if seeds:
      lines.append(
        f"seeds     all of it with each of {', '.join(map(str, seeds))}, in folders seed_N"
      )
    lines.append("dry run: nothing was written. Remove --dry_run to start.")
    if cluster.number() == 0:
      show("\n".join(lines))
    return 0
  if not seeds:
    return _run(flags, scanned, cluster.together(lambda: gin_config.build(scanned)))
  return _run_seeds(flags, scanned, seeds)


def _read(flags: Flags, *bindings: str) -> gin_scan.Scan:
  """The recipe with the bindings of the command line, and after them these."""
  return gin_config.read(
    flags.gin_files,
    [*flags.bindings, *bindings],
    search_paths=flags.values.gin_search_paths,
    allow_imports=flags.values.gin_allow_imports,
  )


def _seeds(scanned: gin_scan.Scan) -> list[int]:
  """The recipe's SEEDS; none where the run is one with its RANDOM_SEED."""
  macro = scanned.macros.get(gin_effect.SEEDS)
  seeds = macro.value if macro else None
  if seeds is None:
    return []
  if (
    not isinstance(seeds, list | tuple)
    or not seeds
    or len(set(seeds)) < len(seeds)
    or not all(isinstance(seed, int) and not isinstance(seed, bool) for seed in seeds)
  ):
    raise ConfigError(
      f"SEEDS={seeds!r} must be None or a list of different whole numbers, such as [1, 2, 3]; on the"
      " command line --seeds=1,2,3."
    )
  return list(seeds)


def _run_seeds(flags: Flags, scanned: gin_scan.Scan, seeds: Sequence[int]) -> int:
  """Everything once with each seed, in folders of its own, and one report on all of them."""
  model_dir = scanned.macros["MODEL_DIR"].value
  outcomes = []
  for number, seed in enumerate(seeds):
    if not flags.values.quiet and cluster.number() == 0:
      show(f"=== seed {seed}, {number + 1} of {len(seeds)}", file=sys.stderr)
    folder = os.path.join(model_dir, f"seed_{seed}")
    own = _read(flags, f"RANDOM_SEED = {seed}", f"MODEL_DIR = {folder!r}")
    outcomes += _trained(flags, own, cluster.together(functools.partial(gin_config.build, own)))
  return _tell(outcomes, model_dir, as_json=flags.values.json) if cluster.number() == 0 else 0


def _plan(experiment, *, verbose: bool) -> Iterator[str]:
  from promot_jax.experiments import shapes
  from promot_jax.experiments.pretraining import Pretraining
  from promot_jax.planning import plan

  if isinstance(experiment, Pretraining):
    return plan.describe_pretraining(experiment)
  shapes.check(experiment)
  return plan.describe(experiment, verbose=verbose)


def _run(flags: Flags, scanned: gin_scan.Scan, experiment) -> int:
  from promot_jax.experiments.pretraining import Pretraining

  outcomes = _trained(flags, scanned, experiment)
  if isinstance(experiment, Pretraining) or cluster.number() != 0:
    return 0
  return _tell(outcomes, experiment.model_dir, as_json=flags.values.json)


def _trained(flags: Flags, scanned: gin_scan.Scan, experiment) -> list:
  """The outcomes of what is run; none of a pretraining, which says itself what it made."""
  from promot_jax import hosts
  from promot_jax.experiments import execute, pretraining
  from promot_jax.training.events import Console

  values = flags.values
  folder = pathlib.Path(experiment.model_dir)
  change = values.allow_config_change
  changes = functools.partial(config_record.changes, scanned, folder, allow_change=change)
  changed = hosts.first(changes)
  if not values.quiet and hosts.is_first():
    for line in (*_header(scanned), *(f"changed   {each}" for each in changed)):
      show(line, file=sys.stderr)
  sinks = [] if values.quiet else [Console(sys.stderr)]

  def started() -> None:  # compared once more, now that nobody else can write here
    config_record.write(folder, scanned, command=flags.arguments, changed=changes())

  if isinstance(experiment, pretraining.Pretraining):
    weights = pretraining.pretrain(experiment, sinks=sinks, started=started)
    show(f"weights: {weights}")
    show(f"to ship them: cp {weights} promot_jax/micro/")
    return []
  return execute.execute(experiment, sinks=sinks, started=started, allow_change=change)


def _header(scanned: gin_scan.Scan) -> Iterator[str]:
  import jax

  from promot_jax import __version__

  names = ", ".join(pathlib.Path(root).name for root in scanned.roots)
  included = len(scanned.files) - len(scanned.roots)
  several = f" · {cluster.processes()} processes" if cluster.processes() > 1 else ""
  yield f"promot {__version__} · jax {jax.__version__}{several}"
  yield f"config    {names} (+{included} included, {len(scanned.extra)} bindings given)"


def _tell(outcomes, model_dir: str, *, as_json: bool) -> int:
  from promot_jax.evaluation import report

  folder = pathlib.Path(model_dir)
  # A plan may measure nothing: a report would have no row, and training was no failure.
  measured = any(outcome.results for outcome in outcomes)
  if measured:
    made, written = report.write([folder], folder / "report")
  else:
    made, written = report.Report(title="Nothing was measured", sections=()), []
  if as_json:
    show(json.dumps(report.as_json(made)))
  else:
    show(report.text(made))
    several = len({outcome.experiment.seed for outcome in outcomes}) > 1
    for outcome in outcomes:
      seed = f", seed {outcome.experiment.seed}" if several else ""
      show(f"{outcome.experiment.name}{seed}: {outcome.selected} ({outcome.why})")
    for path in written:
      if path.suffix == ".html":
        show(f"report: {path}")
  return 0


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["train", *sys.argv[1:]]))
