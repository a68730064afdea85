"""Names, versions, splits and metrics of the tasks, as plain data: no seqio, no TensorFlow.

A registered name has up to five parts:

  rte_1shot.tfds.t5            task, demonstrations, source, vocabulary
  rte_1shot.tfds.t5.sentinel   the same with the target between <extra_id_0> and <extra_id_1>
  rte_1shot.micro              the built-in world with its own word vocabulary
  rte_1shot.micro.hf:gpt2_0123abcd   the same with a user's own tokenizer; such names are
                               registered on demand (`tasks.on_demand`)

Without `_1shot` or `_4shot` there are no demonstrations.
"""

import dataclasses
import difflib
import os
from collections.abc import Mapping
from typing import Literal

from promot_jax import errors
from promot_jax.data import vocabularies

Source = Literal["tfds", "micro"]
TargetForm = Literal["raw", "sentinel"]
Selection = Literal["paper", "strict"]

SHOTS = (0, 1, 4)
SOURCES = ("tfds.t5", "tfds.mt5", "micro")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskInfo:
  """Where a task's records come from and how it is scored.

  Attributes:
    name: task without its number of demonstrations.
    tfds: data set, configuration and version of TensorFlow Datasets that the paper used.
    available: the version to offer where the installed TensorFlow Datasets no longer has `tfds`.
    metric: headline score, a key of what the task's metric returns.
    report: split that is reported, in the paper and here.
    selection: split on which the paper chooses a checkpoint; None where the data set has no
      validation split.
  """

  name: str
  tfds: str
  metric: Literal["accuracy", "exact_match", "bleu", "rouge2"]
  report: str = "test"
  selection: str | None = "validation"
  available: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
  """The splits of one run: `train`, `select` (the checkpoint) and `report` (the figures)."""

  train: str
  select: str
  report: str


_INFORMATION = (
  # SuperGLUE's test labels are not public, so its validation split is reported.
  TaskInfo(name="rte", tfds="super_glue/rte:1.0.2", metric="accuracy", report="validation"),
  TaskInfo(name="cb", tfds="super_glue/cb:1.0.2", metric="accuracy", report="validation"),
  TaskInfo(name="wic", tfds="super_glue/wic:1.0.2", metric="accuracy", report="validation"),
  TaskInfo(name="snli", tfds="snli:1.1.0", metric="accuracy"),
  TaskInfo(name="openbookqa", tfds="openbookqa:0.1.0", metric="accuracy"),
  # TFDS has no answers for TriviaQA's test split, so its validation split is reported.
  TaskInfo(
    name="trivia_qa",
    tfds="trivia_qa/rc.nocontext:1.1.0",
    metric="exact_match",
    report="validation",
  ),
  TaskInfo(name="web_questions", tfds="web_questions:1.0.0", metric="exact_match", selection=None),
  TaskInfo(
    name="wmt14_en_fr",
    tfds="wmt14_translate/fr-en:0.0.3",
    available="wmt14_translate/fr-en:1.0.0",
    metric="bleu",
  ),
  TaskInfo(
    name="wmt16_en_de",
    tfds="wmt16_translate/de-en:0.0.3",
    available="wmt16_translate/de-en:1.0.0",
    metric="bleu",
  ),
  TaskInfo(
    name="wmt16_en_ro",
    tfds="wmt16_translate/ro-en:0.0.3",
    available="wmt16_translate/ro-en:1.0.0",
    metric="bleu",
  ),
  TaskInfo(name="xsum", tfds="xsum:1.1.0", metric="rouge2"),
  TaskInfo(name="wiki_lingua", tfds="gem/wiki_lingua_english_en:1.1.0", metric="rouge2"),
)

TASKS: Mapping[str, TaskInfo] = {task.name: task for task in _INFORMATION}

# Runs that fine-tune one model on several tasks: Table 5 of Wang et al. (ICLR 2024).  The order of
# the members is the order of the rows of their prompt bank.
MIXTURES: Mapping[str, tuple[str, ...]] = {"rte_and_wmt14_en_fr": ("rte", "wmt14_en_fr")}


def names() -> list[str]:
  """Every task and mixture with each number of demonstrations, as `resolve` takes them."""
  return [_with_shots(name, shots) for name in (*TASKS, *MIXTURES) for shots in SHOTS]


def resolve(
  name: str,
  *,
  source: Source = "tfds",
  vocabulary: str = "t5",
  target: TargetForm = "raw",
) -> str:
  """The seqio name of a task or mixture.

  Args:
    name: 'rte', 'rte_1shot' ...; a name that is already complete, such as 'rte.micro', is returned
      if the vocabulary is not a user's own.
    source: TensorFlow Datasets or the built-in micro world.
    vocabulary: 't5' or 'mt5' of the tfds tasks, where the micro world has its own; or a user's own
      for either, 'hf:FOLDER' or 'sentencepiece:FILE' (`promot_jax.data.vocabularies`).
    target: raw text, or between the first two sentinels.

  Raises:
    ConfigError: no such task or vocabulary, with the nearest names.
  """
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
  _check("source", source, ["tfds", "micro"])
  _check("target form", target, ["raw", "sentinel"])
  place = f"{source}.{vocabularies.label(vocabulary)}" if own or source != "micro" else source
  return f"{name}.{place}" + (".sentinel" if target == "sentinel" else "")


def information(name: str) -> TaskInfo:
  """Facts about a task, from its name with or without demonstrations and source."""
  base, _ = split_shots(name.partition(".")[0])
  _check("task", base, list(TASKS))
  return TASKS[base]


def members(name: str) -> list[str]:
  """The tasks of a mixture, complete if `name` is; a task's only member is itself."""
  first, dot, rest = name.partition(".")
  _check("task", first, names())
  base, shots = split_shots(first)
  return [_with_shots(task, shots) + dot + rest for task in MIXTURES.get(base, (base,))]


def splits(name: str, *, selection: Selection = "paper", source: Source = "tfds") -> Splits:
  """Which splits to train on, to choose a checkpoint on, and to report.

  `paper` does as Wang et al.: where the data set's test labels are not public, one validation
  split both selects and is reported.  `strict` never selects on what is reported: such a task
  keeps a tenth of its training split aside ('selection', the rest is 'train_strict').  A data set
  without validation split is treated the strict way in both.  The micro world has labelled test
  splits for every task, so both ways are the same there.
  """
  _check("selection", selection, ["paper", "strict"])
  if source == "micro":
    return Splits(train="train", select="validation", report="test")
  task = information(name)
  if task.selection is None or (selection == "strict" and task.selection == task.report):
    return Splits(train="train_strict", select="selection", report=task.report)
  return Splits(train="train", select=task.selection, report=task.report)


def split_shots(name: str) -> tuple[str, int]:
  """'rte_1shot' -> ('rte', 1); 'rte' -> ('rte', 0)."""
  for shots in SHOTS:
    if shots and name.endswith(f"_{shots}shot"):
      return name.removesuffix(f"_{shots}shot"), shots
  return name, 0


def tfds_name(task: str) -> str:
  """Data set of a task in TensorFlow Datasets; the environment may name another version."""
  return os.environ.get(tfds_variable(task)) or TASKS[task].tfds


def tfds_variable(task: str) -> str:
  """Environment variable that overrides `TaskInfo.tfds`: PROMOT_TFDS_WMT14_EN_FR ..."""
  return f"PROMOT_TFDS_{task.upper()}"


def _with_shots(name: str, shots: int) -> str:
  return f"{name}_{shots}shot" if shots else name


def _forms() -> list[str]:
  return [place + form for place in SOURCES for form in ("", ".sentinel")]


def _check(kind: str, value: str, known: list[str]) -> None:
  if value in known:
    return
  near = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
  if near:
    hint = f"did you mean {' or '.join(near)}?"
  else:
    shown = [name for name in known if "shot" not in name.partition(".")[0]]
    hint = f"there are: {', '.join(shown)}."
  raise errors.ConfigError(f"{kind} {value!r} is not known; {hint}")
