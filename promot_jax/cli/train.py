"""`promot train`: runs the experiment or comparison of a gin file, or prints its plan."""

import functools
import json
import pathlib
import sys
from collections.abc import Iterator

from promot_jax.cli import cluster, config_record, gin_config, gin_scan
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show


def run(flags: Flags) -> int:
  """Runs `promot train`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  values = flags.values
  scanned = gin_config.read(
    flags.gin_files,
    flags.bindings,
    search_paths=values.gin_search_paths,
    allow_imports=values.gin_allow_imports,
  )
  # Files are read before and values made after: a typing mistake need not wait for other hosts.
  cluster.connect(values)
  experiment = cluster.together(lambda: gin_config.build(scanned))
  if values.dry_run:
    lines = [*_header(scanned), *_plan(experiment, verbose=values.verbose)]
    lines.append("dry run: nothing was written. Remove --dry_run to start.")
    if cluster.number() == 0:
      show("\n".join(lines))
    return 0
  return _run(flags, scanned, experiment)


def _plan(experiment, *, verbose: bool) -> Iterator[str]:
  from promot_jax.experiments import shapes
  from promot_jax.experiments.pretraining import Pretraining
  from promot_jax.planning import plan

  if isinstance(experiment, Pretraining):
    return plan.describe_pretraining(experiment)
  shapes.check(experiment)
  return plan.describe(experiment, verbose=verbose)


def _run(flags: Flags, scanned: gin_scan.Scan, experiment) -> int:
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
    return 0
  outcomes = execute.execute(experiment, sinks=sinks, started=started, allow_change=change)
  if not hosts.is_first():
    return 0
  return _tell(outcomes, experiment, as_json=values.json)


def _header(scanned: gin_scan.Scan) -> Iterator[str]:
  import jax

  from promot_jax import __version__

  names = ", ".join(pathlib.Path(root).name for root in scanned.roots)
  included = len(scanned.files) - len(scanned.roots)
  several = f" · {cluster.processes()} processes" if cluster.processes() > 1 else ""
  yield f"promot {__version__} · jax {jax.__version__}{several}"
  yield f"config    {names} (+{included} included, {len(scanned.extra)} bindings given)"


def _tell(outcomes, experiment, *, as_json: bool) -> int:
  from promot_jax.evaluation import report

  folder = pathlib.Path(experiment.model_dir)
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
    for outcome in outcomes:
      show(f"{outcome.experiment.name}: {outcome.selected} ({outcome.why})")
    for path in written:
      if path.suffix == ".html":
        show(f"report: {path}")
  return 0


if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["train", *sys.argv[1:]]))
