"""Finds tasks by name, without seqio and TensorFlow.

A task of ours is a module of this package that holds a `Task` called TASK, or a `Mixture` called
MIXTURE.  The modules are found by looking for that name in their text, so that a further one needs no
entry anywhere, and knowing every name imports none.

A registered name has up to five parts:

  rte_1shot.tfds.t5            task, demonstrations, source, vocabulary
  rte_1shot.tfds.t5.sentinel   the same with the target between <extra_id_0> and <extra_id_1>
  rte_1shot.micro              the built-in world with its own word vocabulary
  rte_1shot.micro.hf:gpt2_0123abcd   the same with a user's own tokenizer
  rte.files_0123abcd.t5        original files below a folder, `place("files", FOLDER)`

Without `_1shot` or `_4shot` there are no demonstrations; with it there are also those of tasks that others
registered with seqio, whose names are otherwise as they are there.
"""

import difflib
import functools
import importlib
import os
import pathlib
import re
from typing import Literal

import tasks
from promot_jax import errors, identity
from promot_jax.data import vocabularies
from promot_jax.data.task import Mixture, Selection, Splits, Task
from tasks import registered

TargetForm = Literal["raw", "sentinel"]

SHOTS = (0, 1, 4)
SOURCES = ("tfds", "micro", "files")
# Place of a registered name: the source, and the vocabulary where the source has none of its own.
PLACES = ("tfds.t5", "tfds.mt5", "micro")

_added: dict[str, Task] = {}
_folders: dict[
  str, str
] = {}  # 'files_0123abcd' -> 'files:/data', of those that this process has named
_added_mixtures: dict[str, Mixture] = {}
# Of the text, so that knowing all names imports no task; an annotation may stand before the value.
_VALUE = re.compile(r"^(TASK|MIXTURE)\s*(?::[^=\n]+)?=", re.MULTILINE)


def add(task: Task) -> None:
  """Makes a task findable in this process that is no file here, in place of an earlier one of its name.

  Raises:
    ConfigError: a task or mixture of ours has the name.
  """
  if is_ours(task.name) or task.name in mixture_names():
    raise errors.ConfigError(
      f"the name '{task.name}' is that of a task of ours; give yours another."
    )
  _added[task.name] = task


def add_mixture(mixture: Mixture) -> None:
  """The same for a mixture.

  Raises:
    ConfigError: a task, or a mixture of ours, has the name.
  """
  if mixture.name in task_names() or mixture.name in _declared()["MIXTURE"]:
    raise errors.ConfigError(
      f"the name '{mixture.name}' is that of a task; give the mixture another."
    )
  _added_mixtures[mixture.name] = mixture


def is_ours(name: str) -> bool:
  """Whether a task without its number of demonstrations is a file of this package."""
  return name in _declared()["TASK"]


def task_names() -> list[str]:
  """Every task without its number of demonstrations, added ones last."""
  return [*_declared()["TASK"], *_added]


def mixture_names() -> list[str]:
  """Every mixture without its number of demonstrations, added ones last."""
  return [*_declared()["MIXTURE"], *_added_mixtures]


def names() -> list[str]:
  """Every task and mixture with each number of demonstrations, as `resolve` takes them."""
  every = [*_declared()["TASK"], *_declared()["MIXTURE"], *_added, *_added_mixtures]
  return [with_shots(name, shots) for name in every for shots in SHOTS]


def find(name: str) -> Task:
  """A task, from its name with or without demonstrations and source.

  Raises:
    ConfigError: there is no such task, with the nearest names.
  """
  # Names of others win only where none of ours has them.
  if is_open(name):
    return registered.find(split_shots(name)[0])
  base, _ = split_shots(name.partition(".")[0])
  known = task_names()
  if base not in known:
    _check("task", base, known)
  # Added ones have no file.
  if base in _added:
    return _added[base]
  found = importlib.import_module(f"{tasks.__name__}.{base}").TASK
  if not isinstance(found, Task) or found.name != base:
    raise errors.ConfigError(f"tasks/{base}.py must hold a Task of the name '{base}' as TASK.")
  return found


def mixture(name: str) -> Mixture:
  """A mixture, from its name without demonstrations."""
  if name in _added_mixtures:
    return _added_mixtures[name]
  found = importlib.import_module(f"{tasks.__name__}.{name}").MIXTURE
  if not isinstance(found, Mixture) or found.name != name:
    raise errors.ConfigError(
      f"tasks/{name}.py must hold a Mixture of the name '{name}' as MIXTURE."
    )
  return found


def place(source: str, folder: str | None) -> str:
  """What stands for a source where its folder matters too: 'files:/data', else its name.

  Raises:
    ConfigError: there is no such source; or original files without a folder, or a folder that is none.
  """
  _check("source", source, list(SOURCES))
  if source != "files":
    return source
  if not folder or not isinstance(folder, str):
    raise errors.ConfigError(
      "DATA_SOURCE='files' reads the data sets' original files, and DATA_DIR does not say below which folder;"
      " set DATA_DIR='/data', where /data/super_glue/RTE/train.jsonl lies (docs/tasks.md has the names)."
    )
  path = pathlib.Path(folder).expanduser().absolute()
  # Absolute, since a run may go on from another working folder.
  if not path.is_dir():
    raise errors.ConfigError(f"DATA_DIR={folder!r} is no folder; it holds the data sets' folders.")
  return f"files:{path}"


def place_of(label: str) -> str:
  """The place that the second part of a registered name stands for."""
  return _folders.get(label, label)


def resolve(
  name: str,
  *,
  source: str = "tfds",
  vocabulary: str = "t5",
  target: TargetForm = "raw",
) -> str:
  """The seqio name of a task or mixture.

  Args:
    name: 'rte', 'rte_1shot' ...; a name that is already complete, such as 'rte.micro', is returned
      if the vocabulary is not a user's own.
    source: TensorFlow Datasets, the built-in micro world, or a `place` with original files.
    vocabulary: 't5' or 'mt5' of the tfds tasks, where the micro world has its own; or a user's own
      for either, 'hf:FOLDER' or 'sentencepiece:FILE' (`promot_jax.data.vocabularies`).
    target: raw text, or between the first two sentinels.

  Raises:
    ConfigError: no such task or vocabulary, with the nearest names.
  """
  if is_open(name):
    return name
  base, dot, _ = name.partition(".")
  _check("task", base, names())
  own = vocabularies.reference(vocabulary) is not None
  if dot and own:
    raise errors.ConfigError(
      f"task {name!r} names its vocabulary already, and another one is given, {vocabulary!r}; write"
      f" {base!r}."
    )
  if dot:
    _check("task", name, [f"{base}.{form}" for form in _forms()])
    return name
  kind, _, folder = source.partition(":")
  _check("source", kind, list(SOURCES))
  _check("target form", target, ["raw", "sentinel"])
  # Every member has the source, or the mixture is not there.
  for member in members(base):
    find(member).source(source)
  # A digest of the folder: a name has no slashes, and folders have.
  label = f"{kind}_{identity.digest([folder])[:8]}" if folder else kind
  if folder:
    # The way back, for whoever has the registered name only.
    _folders[label] = source
  # The micro world has a vocabulary of its own, so that only a user's own is named.
  end = f"{label}.{vocabularies.label(vocabulary)}" if own or kind != "micro" else label
  return f"{name}.{end}" + (".sentinel" if target == "sentinel" else "")


def members(name: str) -> list[str]:
  """The tasks of a mixture, complete if `name` is; a task's only member is itself."""
  if is_open(name):
    base, shots = split_shots(name)
    return [with_shots(task, shots) for task in registered.members(base)]
  first, dot, rest = name.partition(".")
  _check("task", first, names())
  base, shots = split_shots(first)
  parts = mixture(base).members if base in mixture_names() else (base,)
  return [with_shots(task, shots) + dot + rest for task in parts]


def splits(name: str, *, selection: Selection = "paper", source: str = "tfds") -> Splits:
  """Which splits to train on, to choose a checkpoint on, and to report (`data.task.Source.splits`)."""
  _check("selection", selection, ["paper", "strict"])
  return find(name).source(source).splits(selection)


def split_shots(name: str) -> tuple[str, int]:
  """'rte_1shot' -> ('rte', 1); 'rte' -> ('rte', 0)."""
  # A task of others may have a name that ends so.
  if registered.is_open(name) and not _is_named(name):
    return name, 0  # whatever its name ends in
  for shots in SHOTS:
    if shots and name.endswith(f"_{shots}shot"):
      return name.removesuffix(f"_{shots}shot"), shots
  return name, 0


def with_shots(name: str, shots: int) -> str:
  """('rte', 1) -> 'rte_1shot'; ('rte', 0) -> 'rte'."""
  return f"{name}_{shots}shot" if shots else name


def is_open(name: str) -> bool:
  """Whether it is the name of a task or mixture that others registered with seqio, demonstrations or not."""
  return not _is_named(name) and registered.is_open(split_shots(name)[0])


def _is_named(name: str) -> bool:
  """Whether a name is one of ours, with or without source and vocabulary."""
  return name.partition(".")[0] in names()


def _declared() -> dict[str, list[str]]:
  """TASK and MIXTURE -> names of the modules that hold one."""
  # With the time of change, so that a file that is edited is read again.
  # scandir, since this is asked hundreds of times for each experiment.
  files = [
    (file.path, file.stat().st_mtime_ns)
    for folder in tasks.__path__
    for file in os.scandir(folder)
    if file.name.endswith(".py")
  ]
  return _read(tuple(sorted(files)))


@functools.lru_cache(maxsize=4)
def _read(files: tuple[tuple[str, int], ...]) -> dict[str, list[str]]:
  found: dict[str, list[str]] = {"TASK": [], "MIXTURE": []}
  for name, _ in files:
    file = pathlib.Path(name)
    for kind in sorted(set(_VALUE.findall(file.read_text(encoding="utf-8")))):
      found[kind].append(file.stem)
  return {kind: sorted(set(names)) for kind, names in found.items()}


def _forms() -> list[str]:
  return [place + form for place in PLACES for form in ("", ".sentinel")]


def _check(kind: str, value: str, known: list[str]) -> None:
  if value in known:
    return
  if kind == "task":
    known = [*known, *registered.names(names())]
  # At least half alike, or what is offered looks nothing like it.
  near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
  if near:
    hint = f"did you mean {' or '.join(near)}?"
  else:
    # Without those of demonstrations, which are the same names again.
    shown = [name for name in known if "shot" not in name.partition(".")[0]]
    hint = f"there are: {', '.join(shown)}."
  if kind == "task":
    hint += (
      " A task that you registered with seqio comes with its module, --task_module=MODULE or ./FILE.py,"
      " also for a model directory that was trained on it."
    )
  raise errors.ConfigError(f"{kind} {value!r} is not known; {hint}")
