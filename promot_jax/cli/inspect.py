"""`promot inspect`: what a task's examples, a checkpoint, a configuration or a model look like."""

import json
import pathlib
import re
import sys

from promot_jax import guarded_json
from promot_jax.cli import config_record, gin_config, recipe_data
from promot_jax.cli.flags import Flags
from promot_jax.cli.screen import show
from promot_jax.errors import ConfigError, DamagedCheckpoint

_FORMATS = {"t5x": "T5X checkpoint", "hf": "Hugging Face checkpoint", "npz": ".npz file"}


def run(flags: Flags) -> int:
  """Runs `promot inspect`.

  Raises:
    PromotError: see `promot_jax.errors`.
  """
  return _COMMANDS[flags.values.what](flags) or 0


def _data(flags: Flags) -> None:
  values = flags.values
  if flags.gin_files or values.model_dir:
    return recipe_data.run(flags)
  if not values.name:
    from tasks import catalog

    show("tasks: " + ", ".join(catalog.names()))
    return None

  from promot_jax.data import cache
  from promot_jax.data.quiet import quiet
  from tasks import catalog, reading

  place = catalog.place(values.source, values.data_dir)
  found = {}
  for member in catalog.members(values.name):  # of a mixture all, of a task itself
    task = catalog.resolve(member, source=place, vocabulary=values.vocabulary)
    with quiet():
      found[member] = reading.load_examples(
        task,
        values.split or "validation",
        {"inputs": None, "targets": None},
        limit=values.n,
        **_policies(flags),
        vocabulary=values.vocabulary,
        cache_dir=cache.default_dir(),
      )
  if values.json:
    records = {
      name: [{key: each[key] for key in each if key != "example"} for each in some.records]
      for name, some in found.items()
    }
    show(json.dumps(records if len(records) > 1 else next(iter(records.values()))))
    return None
  for member, examples in found.items():
    recipe_data.show_first(examples)
    # Counts stand beside published ones, which the micro world and tasks of others do not have.
    if values.source != "micro" and not catalog.is_open(member):
      with quiet():
        for line in recipe_data.counted(
          examples.name, place, values.split, vocabulary=values.vocabulary
        ):
          show(line)
  return None


def _policies(flags: Flags) -> dict:
  """What a message of the data advises, `--gin.MALFORMED="'skip'"`, where there is no recipe."""
  found: dict = {}
  for binding in flags.bindings:
    name, _, value = binding.partition("=")
    if name.strip() in ("MALFORMED", "EMPTY_TARGETS"):
      found[name.strip().lower()] = value.strip().strip("'\"")
  return found


def _checkpoint(flags: Flags) -> int:
  from promot_jax.checkpoints import step_files

  values = flags.values
  if not values.name:
    raise ConfigError("promot inspect checkpoint needs a folder.")
  root = pathlib.Path(values.name)
  steps, aside = _steps(root)
  if not steps and not aside:
    return _of_others(values.name)
  damaged = 0
  for path in steps:
    try:
      arrays = step_files.describe(path)[1]
      problems = _problems(path) if values.verify else []
    except DamagedCheckpoint as error:  # its description names and shapes the arrays
      arrays, problems = {}, [str(error).removesuffix(".")]
    damaged += bool(problems)
    state = f"  DAMAGED: {'; '.join(problems)}" if problems else "  checksums ok" * values.verify
    show(f"{path}  {len(arrays)} arrays{state}")
    if len(steps) == 1 or values.verbose:
      for name, entry in arrays.items():
        show(f"  {name}  {list(entry.shape)}  {entry.dtype}")
  for folder in sorted({path.parent for path in steps}) if values.verify else ():
    for problem in _damaged_records(folder):
      damaged += 1
      show(f"{folder}  DAMAGED: {problem}")
  if values.verify and (remark := guarded_json.remark(_records(steps))):
    show(remark)
  for path in aside:
    show(f"{path}  set aside, not used")
  return DamagedCheckpoint.exit_code if damaged else 0


def _steps(root: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """The steps at or below a folder, sound or not, and those that were set aside as damaged."""
  from promot_jax.checkpoints import step_files

  # A step is known by its files, also under another name; checkpoint_N may be one of T5X's.
  if any((root / name).is_file() for name in ("manifest.json", "metadata.json")):
    return [root], []
  found = [path for path in root.rglob("checkpoint_*") if path.is_dir()]
  steps = [path for path in found if re.fullmatch(r"checkpoint_\d+", path.name)]
  steps = [path for path in steps if not step_files.is_foreign(path)]
  aside = [path for path in found if re.fullmatch(r"checkpoint_\d+\.damaged(-\d+)?", path.name)]
  steps.sort(key=lambda path: (path.parent, int(path.name.removeprefix("checkpoint_"))))
  return steps, sorted(aside)


def _problems(path: pathlib.Path) -> list[str]:
  """What is wrong with the files of a step, its score included."""
  from promot_jax.checkpoints import manifest

  return [*manifest.problems(path), *_damaged_records(path, only="score.json")]


def _damaged_records(folder: pathlib.Path, only: str = "*.json") -> list[str]:
  """What is wrong with the records in a folder of steps, or with one record of a step."""
  found = []
  for path in sorted(folder.glob(only)):
    # These two have checks of their own (`manifest.problems`).
    if path.is_file() and path.name not in ("manifest.json", "metadata.json"):
      try:
        guarded_json.parse(path.read_bytes(), shape={})
      except (OSError, ValueError) as error:
        found.append(f"{path.name} {error}")
  return found


def _records(steps: list[pathlib.Path]) -> list[pathlib.Path]:
  """The records of some steps and of the folders that they lie in."""
  scores = [path / "score.json" for path in steps]
  return [
    *scores,
    *(p for f in sorted({s.parent for s in steps}) for p in sorted(f.glob("*.json"))),
  ]


def _of_others(text: str) -> int:
  """A checkpoint as --init takes it, by our names: T5X, Hugging Face, .npz."""
  from promot_jax.checkpoints import recognition, sources, t5x

  source = sources.resolve(text)
  if source.kind in ("micro", "random"):
    raise ConfigError(f"'{text}' is no checkpoint in a folder; see promot inspect model.")
  leaves = sources.open_source(source)
  place = t5x.find_t5x(source.place) if source.kind == "t5x" else source.place
  guess = recognition.looks_like(leaves)
  show(f"{place}  {_FORMATS[source.kind]}, {len(leaves)} parameters{'; ' + guess if guess else ''}")
  for name, leaf in leaves.items():
    show(f"  {name}  {list(leaf.shape)}  {leaf.dtype}")
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
    show(json.dumps(scanned.flat()))
    return
  for path in scanned.files:
    show(f"# {path}")
  show("\n# macros")
  for name, binding in sorted(scanned.macros.items()):
    show(f"{name} = {gin_config.shown(binding.value)}    # {binding.place}")
  show("\n# parameters, macros resolved")
  show(config_record.flat_text(scanned).rstrip("\n"))


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
  from promot_jax.experiments import shapes
  from promot_jax.experiments.comparison import experiments_of
  from promot_jax.planning import training_costs

  for experiment in experiments_of(run_):
    model = shapes.abstract_model(experiment)
    for stage in experiment.stages or (None,):
      show(f"{experiment.name}, stage {stage.name if stage else 'none'}")
      rows = parameter_paths.parameter_table(
        model, stage.trainable if stage else None, partitioning.T5_RULES
      )
      show(parameter_paths.format_table(rows) + "\n")
      show(
        training_costs.format_costs(training_costs.costs(model, experiment.method, stage)) + "\n"
      )


_COMMANDS = {"data": _data, "checkpoint": _checkpoint, "config": _config, "model": _model}

if __name__ == "__main__":
  from promot_jax.cli.main import main

  sys.exit(main(["inspect", *sys.argv[1:]]))
