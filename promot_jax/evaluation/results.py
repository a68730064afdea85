"""What an evaluation leaves on disk, and how it is found again.

Layout below one folder, usually `MODEL_DIR/evaluation`:

    run.json                                          RunRecord: how the model was made
    CHECKPOINT/TASK.SPLIT.Nshot.PROMPT.json           TaskResult: scores and settings
    CHECKPOINT/TASK.SPLIT.Nshot.PROMPT.jsonl          one Prediction a line
    CHECKPOINT/outputs.partial.jsonl                  raw outputs of an unfinished evaluation

A result is complete when its .json exists: predictions are written first, and every file appears by
one rename.  A second evaluation under the same settings finds it by its fingerprint and is skipped.
Reports read these files and nothing else, so this module imports neither JAX nor TensorFlow.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from promot_jax import errors, signals

FORMAT = 1
PROMPTS = ("none", "attached", "detached")
_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageRecord:
  """What one stage of an evaluated model trained.

  Args:
    trained: number of trained parameters; backbone: of all that the pretrained model has.
    step_seconds: median time of an update, compilation left out; None where it is not known.
  """

  name: str
  trained: int
  backbone: int
  step_seconds: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
  """How an evaluated model was made: the part of a report that scores cannot tell.

  Args:
    method: as in the quoted tables: pretrained, fine_tuning, prompt_tuning, promot, joint,
      random_prompt, multitask_fine_tuning, multitask_promot, each also with `_1shot`.
    trained_on: task name, several joined by `+`, or `none` for a pretrained model.
    selected: the checkpoint whose scores are reported; `why` says how it was chosen.
    backbone: name of the pretrained model; `parameters` counts its weights.
    data: source of the examples: `micro`, `tfds`; or, where a data set is not the published one,
      which ones are not.
    data_sets: task -> name, version and size of what was read; own_tasks: those of them that are not
      the published ones, so that published figures do not stand beside theirs.
    variant: what else tells this run from others of its method, for example `learning rate 0.01`.
    settings: plain values worth reading beside the scores (steps, rates, batch size ...).
    stages: in the order of training; none of a pretrained model.
    environment: versions and device.
  """

  method: str
  trained_on: str = "none"
  seed: int = 0
  selected: str = ""
  why: str = ""
  backbone: str = ""
  parameters: int = 0
  data: str = ""
  data_sets: Mapping[str, str] = dataclasses.field(default_factory=dict)
  own_tasks: Sequence[str] = ()
  variant: str = ""
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  stages: Sequence[StageRecord] = ()
  environment: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  command: str = ""

  def __post_init__(self):
    stages = tuple(StageRecord(**s) if isinstance(s, Mapping) else s for s in self.stages)
    object.__setattr__(self, "own_tasks", tuple(self.own_tasks))
    object.__setattr__(self, "stages", stages)  # a file holds them as JSON objects


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskResult:
  """Scores of one checkpoint on one task at one number of shots with the prompt on or off.

  Args:
    prompt: `attached`, `detached`, or `none` for a model that never had one.
    metric: name of the headline score, the one that enters Norm. Avg.
    scores, standard_errors: by metric name, 0 to 100; errors are over the test examples.
    intervals: 95 % limits over the test examples, by metric name, where there are any
      (`metrics.confidence.Estimate`).
    count: number of examples.
    settings: decoding, lengths, metric settings; part of the fingerprint.
    notes: facts about the data that are not settings, such as how many inputs were cut.
  """

  task: str
  shots: int
  prompt: str
  metric: str
  scores: Mapping[str, float]
  count: int
  split: str = ""
  prompt_id: int = 0
  standard_errors: Mapping[str, float] = dataclasses.field(default_factory=dict)
  intervals: Mapping[str, Sequence[float]] = dataclasses.field(default_factory=dict)
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fingerprint: str = ""
  checkpoint: str = ""

  @property
  def score(self) -> float:
    """The headline score, 0 to 100."""
    return self.scores[self.metric]

  @property
  def standard_error(self) -> float | None:
    """Standard error of the headline score over examples, if it was computed."""
    return self.standard_errors.get(self.metric)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prediction:
  """One evaluated example.

  Args:
    input: decoded model input; targets: the accepted answers; raw: the decoded output;
      prediction: what post-processing left of it.
    score: the headline metric of this example alone, 0 to 100; None if it has no such score.
    log_probability: the decoding strategy's score of the output (or of the chosen option).
  """

  task: str
  shots: int
  index: int
  input: str
  targets: Any
  prediction: str
  raw: str
  score: float | None
  log_probability: float


@dataclasses.dataclass(frozen=True)
class ResultStore:
  """The results below one folder."""

  directory: str | os.PathLike

  @property
  def root(self) -> pathlib.Path:
    return pathlib.Path(self.directory)

  def write_run(self, record: RunRecord) -> None:
    """Writes `run.json`, replacing an older one."""
    write_json(self.root / "run.json", {"format": FORMAT, **dataclasses.asdict(record)})

  def read_run(self) -> RunRecord:
    """The record in `run.json`.

    Raises:
      DataError: the file is absent, not JSON, or lacks the method.
    """
    return _load(self.root / "run.json", RunRecord)

  def write(
    self, checkpoint: str, result: TaskResult, predictions: Sequence[Prediction] = ()
  ) -> None:
    """Stores a finished evaluation of `checkpoint`: predictions first, then the scores."""
    path = self._path(checkpoint, result)
    lines = "".join(_line(dataclasses.asdict(prediction)) for prediction in predictions)
    write_text(path.with_name(path.name + "l"), lines)
    stored = dataclasses.asdict(dataclasses.replace(result, checkpoint=checkpoint))
    write_json(path, {"format": FORMAT, **stored})

  def find(self, checkpoint: str, wanted: TaskResult) -> TaskResult | None:
    """The stored result with `wanted`'s task, split, shots, prompt and fingerprint, or None.

    A result that cannot be read counts as absent: evaluating again replaces it.
    """
    try:
      stored = _load(self._path(checkpoint, wanted), TaskResult)
    except errors.DataError:
      return None
    return stored if stored.fingerprint == wanted.fingerprint else None

  def checkpoints(self) -> list[str]:
    """Names of the checkpoints with at least one result, in natural order (9 before 10)."""
    folders = {path.parent.name for path in self.root.glob("*/*shot.*.json")}
    return sorted(folders, key=natural_order)

  def results(self, checkpoint: str) -> list[TaskResult]:
    """Every result of a checkpoint, sorted by task, shots, prompt.

    Raises:
      DataError: a result file is damaged.
    """
    folder = self.root / safe_name(checkpoint)
    found = [_load(path, TaskResult) for path in folder.glob("*shot.*.json")]
    return sorted(found, key=lambda r: (r.task, r.shots, r.prompt, r.prompt_id, r.split))

  def predictions(self, checkpoint: str, result: TaskResult) -> Iterator[Prediction]:
    """The stored predictions of a result, in example order; none if they were removed."""
    path = self._path(checkpoint, result)
    path = path.with_name(path.name + "l")
    if path.exists():
      with path.open(encoding="utf-8") as lines:
        for line in lines:
          yield Prediction(**json.loads(line))

  def journal(self, checkpoint: str) -> "Journal":
    """The raw outputs of an evaluation of `checkpoint` that was stopped on its way."""
    return Journal(self.root / safe_name(checkpoint) / "outputs.partial.jsonl")

  def _path(self, checkpoint: str, result: TaskResult) -> pathlib.Path:
    if result.prompt not in PROMPTS:
      raise errors.ConfigError(
        f"Prompt state '{result.prompt}' is unknown; use one of {', '.join(PROMPTS)}."
      )
    row = f"_{result.prompt_id}" if result.prompt == "attached" and result.prompt_id else ""
    name = f"{result.task}.{result.split or 'all'}.{result.shots}shot.{result.prompt}{row}.json"
    return self.root / safe_name(checkpoint) / safe_name(name)


@dataclasses.dataclass(frozen=True)
class Journal:
  """Outputs appended batch by batch, so a stopped evaluation repeats only the batches in flight."""

  path: pathlib.Path

  def read(self) -> Iterator[dict[str, Any]]:
    """The entries, in the order they were added; lines cut by a crash are left out."""
    if not self.path.exists():
      return
    with self.path.open("rb") as lines:
      for line in lines:
        try:
          entry = json.loads(line)
        except ValueError:
          continue
        if isinstance(entry, dict):
          yield entry

  def append(self, entries: Iterable[Mapping[str, Any]]) -> None:
    """Adds one line for each entry and hands them to the operating system."""
    _ensure_folder(self.path.parent)
    with _writing(self.path), self.path.open("ab") as file:
      if file.tell() and not _ends_line(self.path):
        file.write(b"\n")  # a line cut by a crash must not swallow the first new one
      file.write("".join(_line(entry) for entry in entries).encode("utf-8"))

  def remove(self) -> None:
    """Deletes the file once its outputs are part of finished results."""
    self.path.unlink(missing_ok=True)


def fingerprint(value: Any) -> str:
  """SHA-256 of a JSON value, written in hexadecimal; equal values give equal fingerprints."""
  text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
  return hashlib.sha256(text.encode()).hexdigest()


def natural_order(name: str) -> list:
  """Sort key under which numbers inside names count as numbers: step-9 before step-10."""
  return [
    (part.isdigit(), int(part) if part.isdigit() else part)
    for part in re.split(r"(\d+)", name)
    if part
  ]


def safe_name(name: str) -> str:
  """`name` if it is safe as one path component, else ConfigError: it may come from a config."""
  if not _NAME.fullmatch(name):
    raise errors.ConfigError(
      f"'{name}' cannot name a result; use letters, digits and '_', '.', '+', '-' only."
    )
  return name


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes indented JSON in one rename; NaN is refused because other readers reject it."""
  write_text(path, json.dumps(_plain(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes a file so that readers see the old or the new content, never a part.

  Raises:
    CannotWrite: the folder cannot be made or written, or the disk is full.
  """
  write_bytes(path, text.encode("utf-8"))


def write_bytes(path: pathlib.Path, data: bytes) -> None:
  """As `write_text`, for binary content."""
  _ensure_folder(path.parent)
  with _writing(path):
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    remove = functools.partial(pathlib.Path(temporary).unlink, missing_ok=True)
    try:
      with signals.undone_at_end(remove):
        with os.fdopen(descriptor, "wb") as file:
          file.write(data)
          file.flush()
          os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp gives 0600, which a report's readers cannot open
        with signals.undivided():
          os.replace(temporary, path)
    except BaseException:
      remove()
      raise


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
  """Turns the operating system's write errors into the one a user can act on."""
  try:
    yield
  except OSError as error:
    raise errors.CannotWrite(
      f"Cannot write {path}: {error.strerror or error}; check the path, its permissions and the "
      "free space, then run the same command again."
    ) from error


def _ends_line(path: pathlib.Path) -> bool:
  with path.open("rb") as file:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _ensure_folder(folder: pathlib.Path) -> None:
  with _writing(folder):
    folder.mkdir(parents=True, exist_ok=True)


def _line(value: Mapping[str, Any]) -> str:
  return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
  """`value` as JSON types: numpy scalars become numbers, non-finite numbers become null."""
  if isinstance(value, Mapping):
    return {str(key): _plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [_plain(item) for item in value]
  if hasattr(value, "tolist"):  # numpy scalars and arrays, without importing numpy for them
    return _plain(value.tolist())
  if isinstance(value, bytes):
    return value.decode("utf-8", "replace")
  if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
    return None
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  return str(value)


def _load(path: pathlib.Path, kind: type) -> Any:
  """An object of `kind` from a JSON file; unknown keys, from a later version, are ignored."""
  try:
    stored = json.loads(path.read_text(encoding="utf-8"))
    names = {field.name for field in dataclasses.fields(kind)}
    return kind(**{key: value for key, value in stored.items() if key in names})
  except (OSError, ValueError, TypeError, AttributeError) as error:
    raise errors.DataError(
      f"{path} is not a readable {kind.__name__} ({error}); delete it and evaluate again."
    ) from error
