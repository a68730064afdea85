"""What an evaluation leaves on disk, and how it is found again.

Layout below one folder, usually `MODEL_DIR/evaluation`:

    run.json                                          RunRecord: how the model was made
    CHECKPOINT/TASK.SPLIT.Nshot.METHOD.json           TaskResult: scores and settings
    CHECKPOINT/TASK.SPLIT.Nshot.METHOD.jsonl          one Prediction a line
    CHECKPOINT/TASK.SPLIT.Nshot.METHOD.ranked.json    the same with answers ranked, not generated
    CHECKPOINT/TASK.SPLIT.Nshot.METHOD.classified.json  ... or told by a prediction head
    CHECKPOINT/TASK.SPLIT.Nshot.METHOD.firstM.json    the same of the first M examples only
    CHECKPOINT/TASK.SPLIT.Nshot.METHOD.as-WAY.json    the same measured in another way (`ways.py`)
    CHECKPOINT/outputs.partial.jsonl                  raw outputs of an unfinished evaluation

A result is complete when its .json exists: predictions are written first, and every file appears by
one rename.  A second evaluation under the same settings finds it by its fingerprint and is skipped;
one in another way lies beside it and replaces nothing.
Reports read these files and nothing else, so this module imports neither JAX nor TensorFlow.
"""

import dataclasses
import hashlib
import logging
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from promot_jax import errors, guarded_json
from promot_jax.evaluation import field_types, prediction_file, ways, whole_files
from promot_jax.evaluation.journal import Journal
from promot_jax.evaluation.records import Prediction, RunRecord, TaskResult
from promot_jax.identity import Identity
from promot_jax.metrics.registry import scale_of

FORMAT = 1
ORIGIN = ("data", "start weights")
"""Parts of `TaskResult.made_from` that a stored result must share to be used."""
METHOD_STATES = ("none", "attached", "detached")
_log = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*")


_PREDICTION = frozenset(field.name for field in dataclasses.fields(Prediction))


@dataclasses.dataclass(frozen=True)
class ResultStore:
  """The results below one folder.

  report: receives a line if something damaged is found; by default the log, at warning level.
  """

  directory: str | os.PathLike
  report: Callable[[str], None] = _log.warning
  _told: set[str] = dataclasses.field(default_factory=set, init=False, repr=False, compare=False)

  @property
  def root(self) -> pathlib.Path:
    return pathlib.Path(self.directory)

  def write_run(self, record: RunRecord) -> None:
    """Writes `run.json`, replacing an older one."""
    path = self.root / "run.json"
    self._keep_damaged(path, RunRecord)
    _write_record(path, record)

  def read_run(self) -> RunRecord:
    """The record in `run.json`.

    Raises:
      DataError: the file is absent.
      DamagedRecord: it is not as it was written, or no record of a run.
    """
    return _load(self.root / "run.json", RunRecord)

  def write(
    self, checkpoint: str, result: TaskResult, predictions: Sequence[Prediction] = ()
  ) -> None:
    """Stores a finished evaluation of `checkpoint`: predictions first, then the scores.

    An earlier result is replaced only by one that was measured in the same way.
    """
    path = self._place(checkpoint, result)
    self._keep_damaged(path, TaskResult)
    lines = "".join(
      whole_files.line(dataclasses.asdict(prediction)) for prediction in predictions
    ).encode()
    # Predictions first: a result whose file exists is complete.
    whole_files.write_bytes(prediction_file.beside(path), lines)
    digest = hashlib.sha256(lines).hexdigest()
    # The digest ties the two files: predictions of another evaluation are found out.
    stored = dataclasses.replace(result, checkpoint=checkpoint, predictions_sha256=digest)
    _write_record(path, stored)

  def find(self, checkpoint: str, wanted: TaskResult) -> TaskResult | None:
    """The stored result with `wanted`'s task, split, shots, state of the method and fingerprint, or None.

    A result that is damaged, or whose predictions are, is reported and counts as absent: evaluating
    again replaces it, and keeps what was there as `.damaged`.
    """
    for path in dict.fromkeys(
      # Earlier versions did not tell a part of the examples by its name.
      self._path(checkpoint, each, way=way)
      for each in (wanted, dataclasses.replace(wanted, limit=None))
      # Beside its own name it may lie under the plain one, which the first way of a task has.
      for way in (ways.of(wanted.settings), "")
    ):
      if not path.exists():
        continue
      try:
        stored = _load(path, TaskResult)
        # Another fingerprint is another measurement, and no damage.
        if stored.fingerprint == wanted.fingerprint:
          _require_same_origin(path, stored, wanted)
          self._checked(path, stored)
          return stored
      except errors.DamagedRecord as error:
        # Asked for more than once an evaluation: said once.
        if str(path) not in self._told:
          self._told.add(str(path))
          self.report(str(error))
    return None

  def checkpoints(self) -> list[str]:
    """Names of the checkpoints with at least one result, in natural order (9 before 10)."""
    # A folder that no checkpoint can be called, such as a copy by hand, is none of ours.
    folders = {
      path.parent.name
      for path in self.root.glob("*/*shot.*.json")
      if _NAME.fullmatch(path.parent.name)
    }
    return sorted(folders, key=natural_order)

  def results(self, checkpoint: str) -> list[TaskResult]:
    """Every result of a checkpoint, sorted by task, shots, state of the method.

    A result that is damaged is reported and left out.
    """
    folder = self.root / safe_name(checkpoint)
    found = []
    # Not *.json: reports and other files of users may lie there, too.
    for path in sorted(folder.glob("*shot.*.json")):
      try:
        found.append(_load(path, TaskResult))
      except errors.DamagedRecord as error:
        self.report(str(error))
    return sorted(found, key=lambda r: (r.task, r.shots, r.method, r.bank_row, r.split))

  def records(self) -> list[pathlib.Path]:
    """The files of the run's record and of all results."""
    found = [self.root / "run.json", *sorted(self.root.glob("*/*shot.*.json"))]
    return [path for path in found if path.exists()]

  def predictions(self, checkpoint: str, result: TaskResult) -> Iterator[Prediction]:
    """The stored predictions of a result, in example order; none if they were removed.

    Raises:
      DamagedRecord: they are not as they were written.
    """
    file = self._checked(self._place(checkpoint, result), result)
    for entry in prediction_file.read(file, _PREDICTION):
      try:
        field_types.require(entry, Prediction)
      except TypeError as error:
        raise errors.DamagedRecord(
          f"The predictions in {file} cannot be used: {error}. {prediction_file.ADVICE}"
        ) from None
      yield Prediction(**entry)

  def journal(self, checkpoint: str) -> "Journal":
    """The raw outputs of an evaluation of `checkpoint` that was stopped on its way."""
    return Journal(self.root / safe_name(checkpoint) / "outputs.partial.jsonl")

  def _keep_damaged(self, path: pathlib.Path, kind: type) -> None:
    """Renames a damaged record, or its damaged predictions, before they are replaced."""
    try:
      stored = _load(path, kind) if path.exists() else None
    except errors.DamagedRecord:
      self._set_aside(path)
      return
    if isinstance(stored, TaskResult):
      try:
        self._checked(path, stored)
      except errors.DamagedRecord:
        self._set_aside(prediction_file.beside(path))

  def _checked(self, path: pathlib.Path, result: TaskResult) -> pathlib.Path:
    """The predictions beside a result, present or not; raises DamagedRecord if they are not its."""
    file = prediction_file.beside(path)
    prediction_file.check(
      file, fields=_PREDICTION, sha256=result.predictions_sha256, count=result.count
    )
    return file

  def _set_aside(self, path: pathlib.Path) -> None:
    with whole_files.writing(path):
      self.report(f"{path} is kept as {guarded_json.set_aside(path).name}")

  def _place(self, checkpoint: str, result: TaskResult) -> pathlib.Path:
    """Where a result lies, or is to lie: under the plain name, unless one of another way has it."""
    plain, way = self._path(checkpoint, result), ways.of(result.settings)
    beside = self._path(checkpoint, result, way=way)
    if beside.exists():
      return beside
    try:
      other = _load(plain, TaskResult) if plain.exists() else None
    except errors.DamagedRecord:  # which is no result any more
      return plain
    return plain if other is None or ways.of(other.settings) == way else beside

  def _path(self, checkpoint: str, result: TaskResult, *, way: str = "") -> pathlib.Path:
    if result.method not in METHOD_STATES:
      raise errors.ConfigError(
        f"State '{result.method}' of the method is unknown; use one of {', '.join(METHOD_STATES)}."
      )
    # Row 0 has no mark, as a method without a bank has none.
    row = f"_{result.bank_row}" if result.method == "attached" and result.bank_row else ""
    answers = str(result.settings.get("answers", ""))
    how = f".{answers}" if answers in ("ranked", "classified") else ""
    how += f".first{result.limit}" if result.limit else ""
    how += f".as-{way}" if way else ""
    name = (
      f"{result.task}.{result.split or 'all'}.{result.shots}shot.{result.method}{row}{how}.json"
    )
    return self.root / safe_name(checkpoint) / safe_name(name)


def natural_order(name: str) -> list:
  """Sort key under which numbers inside names count as numbers: step-9 before step-10."""
  return [
    # The flag first, as numbers and texts cannot be compared with each other.
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


_ADVICE = {
  "RunRecord": "The scores beside it are safe; promot train on the run's folder writes it again.",
  "TaskResult": prediction_file.ADVICE,
}
_FORMER = {"TaskResult": {"prompt": "method", "prompt_id": "bank_row"}}
"""Fields of records of earlier versions, by their names now."""
_SHAPES: Mapping[str, guarded_json.Shape] = {
  "RunRecord": {"method": str},
  "TaskResult": {
    "task": str,
    "shots": int,
    "metric": str,
    "scores": dict,
    "count": int,
  },
}


def _require_same_origin(path: pathlib.Path, stored: TaskResult, wanted: TaskResult) -> None:
  """Raises DamagedRecord if a result is of other data or other weights of the same name."""
  earlier = Identity.from_json(stored.made_from)
  now = Identity.from_json(wanted.made_from)
  if changed := now.changes(earlier, ORIGIN) if now and earlier else []:
    raise errors.DamagedRecord(f"{path} is not used: {'; '.join(changed)}. It is run again.")


def _write_record(path: pathlib.Path, record: Any) -> None:
  content = {"format": FORMAT, **dataclasses.asdict(record)}
  whole_files.write_text(path, guarded_json.text(whole_files.plain(content)))


def _load(path: pathlib.Path, kind: type) -> Any:
  """An object of `kind` from a record; unknown keys, from a later version, are ignored."""
  advice = _ADVICE[kind.__name__]
  record = guarded_json.read(path, shape=_SHAPES[kind.__name__], advice=advice)
  if record is None:
    raise errors.DataError(f"There is no {path}; run promot train or promot eval first.")
  names = {field.name for field in dataclasses.fields(kind)}
  # Names of earlier versions are translated here, so that all behind know one name only.
  former = _FORMER.get(kind.__name__, {})
  content = {former.get(key, key): value for key, value in record.content.items()}
  try:
    field_types.require(content, kind)
    loaded = kind(**{key: value for key, value in content.items() if key in names})
    # Types are right by now; a headline score out of its range is damage all the same.
    return _sound(loaded) if isinstance(loaded, TaskResult) else loaded
  except (TypeError, ValueError, AttributeError) as error:
    raise errors.DamagedRecord(f"{path} is no {kind.__name__} ({error}). {advice}") from None


def _sound(result: TaskResult) -> TaskResult:
  """The result without scores that were no number; raises ValueError if the headline one is none."""
  scores = {name: value for name, value in result.scores.items() if value is not None}
  headline, scale = scores.get(result.metric), scale_of(result.metric)
  if headline is None or not scale.holds(headline) or result.count < 1:
    raise ValueError(
      f"'{result.metric}' of {result.count} examples is {headline}, not from {scale.range}"
    )
  return dataclasses.replace(result, scores=scores)
