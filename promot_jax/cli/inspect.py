"""`promot inspect`: what a task's examples, a checkpoint, a configuration or a model look like."""

import json
import pathlib
import sys

from promot_jax.cli import config_record, gin_config
from promot_jax.cli.flags import Flags
from promot_jax.errors import ConfigError

_FORMATS = {"t5x": "T5X checkpoint", "hf": "Hugging Face checkpoint", "npz": ".npz file"}


def run(flags: Flags) -> int:
  """Runs `promot inspect`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  return _COMMANDS[flags.values.what](flags) or 0


def _data(flags: Flags) -> None:
  values = flags.values
  if not values.name:
    from tasks import catalog

    print("tasks: " + ", ".join(catalog.names()))
    return

  from promot_jax.data import cache, vocabularies
  from promot_jax.data.examples import load_examples
  from tasks import catalog, on_demand

  task = catalog.resolve(values.name, source=values.source, vocabulary=values.vocabulary)
  split = values.split
  examples = load_examples(
    task,
    split,
    {"inputs": None, "targets": None},
    limit=values.n,
    **_policies(flags),
    vocabulary=values.vocabulary if vocabularies.reference(values.vocabulary) else None,
    register=lambda: on_demand.register(task, values.vocabulary),
    cache_dir=cache.default_dir(),
  )
  if values.json:
    print(json.dumps([dict(record) for record in examples.records]))
    return
  print(f"{task}, split {split}, first {len(examples)} examples")
  for number, record in enumerate(examples.records):
    end = examples.lengths.input_end
    print(f"\n[{number}] inputs ({len(examples.inputs[number])} tokens with {end})")
    print(f"    {record['inputs']}")
    print(f"    targets: {record['targets']}   answers: {record['answers']}")


def _policies(flags: Flags) -> dict:
  """What a message of the data advises, `--gin.MALFORMED="'skip'"`, where there is no recipe."""
  found: dict = {}
  for binding in flags.bindings:
    name, _, value = binding.partition("=")
    if name.strip() in ("MALFORMED", "EMPTY_TARGETS"):
      found[name.strip().lower()] = value.strip().strip("'\"")
  return found


def _checkpoint(flags: Flags) -> int:
  from promot_jax.checkpoints.store import Store

  values = flags.values
  if not values.name:
    raise ConfigError("promot inspect checkpoint needs a folder.")
  root = pathlib.Path(values.name)
  steps = [root] if (root / "manifest.json").is_file() else sorted(root.rglob("checkpoint_*"))
  steps = [path for path in steps if path.is_dir() and (path / "metadata.json").is_file()]
  if not steps:
    return _of_others(values.name)
  damaged = 0
  for path in steps:
    store = Store(path.parent)
    description = json.loads((path / "metadata.json").read_text())
    arrays = description["arrays"]
    state = ""
    if values.verify:
      problems = store.verify(int(path.name.removeprefix("checkpoint_")))
      damaged += bool(problems)
      state = f"  DAMAGED: {'; '.join(problems)}" if problems else "  checksums ok"
    print(f"{path}  {len(arrays)} arrays{state}")
    if len(steps) == 1 or values.verbose:
      for name, entry in arrays.items():
        print(f"  {name}  {entry['shape']}  {entry['dtype']}")
    store.close()
  return 74 if damaged else 0


def _of_others(text: str) -> int:
  """A checkpoint as --init takes it, by our names: T5X, Hugging Face, .npz."""
  from promot_jax.checkpoints import recognition, sources, t5x

  source = sources.resolve(text)
  if source.kind in ("micro", "random"):
    raise ConfigError(f"'{text}' is no checkpoint in a folder; see promot inspect model.")
  leaves = sources.open_source(source)
  place = t5x.find_t5x(source.place) if source.kind == "t5x" else source.place
  guess = recognition.looks_like(leaves)
  print(
    f"{place}  {_FORMATS[source.kind]}, {len(leaves)} parameters{'; ' + guess if guess else ''}"
  )
  for name, leaf in leaves.items():
    print(f"  {name}  {list(leaf.shape)}  {leaf.dtype}")
  return 0


def _config(flags: Flags) -> None:
  values = flags.values
  files = [*([values.name] if values.name else []), *flags.gin_files]
  scanned = gin_config.read(
    files,
    flags.bindings,
    search_paths=values.gin_search_paths,
    allow_imports=values.gin_allow_imports,
  )
  if values.json:
    print(json.dumps(scanned.flat()))
    return
  for path in scanned.files:
    print(f"# {path}")
  print("\n# macros")
  for name, binding in sorted(scanned.macros.items()):
    print(f"{name} = {gin_config.shown(binding.value)}    # {binding.place}")
  print("\n# parameters, macros resolved")
  print(config_record.flat_text(scanned), end="")


def _model(flags: Flags) -> None:
  values = flags.values
  files = [*([values.name] if values.name else []), *flags.gin_files]
  run_ = gin_config.build(
    gin_config.read(
      files,
      flags.bindings,
      search_paths=values.gin_search_paths,
      allow_imports=values.gin_allow_imports,
    )
  )

  from promot_jax import partitioning
  from promot_jax import paths as parameter_paths
  from promot_jax.experiments import costs, plan
  from promot_jax.experiments.comparison import experiments_of

  for experiment in experiments_of(run_):
    model = plan.abstract_model(experiment)
    for stage in experiment.stages or (None,):
      print(f"{experiment.name}, stage {stage.name if stage else 'none'}")
      rows = parameter_paths.parameter_table(
        model, stage.trainable if stage else None, partitioning.T5_RULES
      )
      print(parameter_paths.format_table(rows) + "\n")
      print(costs.format_costs(costs.costs(model, experiment.method, stage)) + "\n")


_COMMANDS = {"data": _data, "checkpoint": _checkpoint, "config": _config, "model": _model}

if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["inspect", *sys.argv[1:]]))
