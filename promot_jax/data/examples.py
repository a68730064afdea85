"""A split of a seqio task as token arrays in memory, with what was cut and left out.

The tasks of this project have thousands of examples, and knowing all lengths is what makes good
batches, exact resumption and honest counts possible.  Sets with millions of examples are bounded by
`limit`.  seqio and TensorFlow are imported only when a split is really read: a second process finds
it in the cache.
"""

import dataclasses
import functools
import hashlib
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from promot_jax import errors, identity
from promot_jax.data import cache, elements, split_reader, vocabularies
from promot_jax.data import features as features_lib
from promot_jax.data.features import OWN, Feature, pack, unpack
from promot_jax.data.length_report import LengthReport


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
  """Tokenized examples in a fixed order.

  Attributes:
    name: seqio name of the task.
    split: its split.
    features: name -> one array for each example.  `inputs` and `targets`: int32 tokens in their family's
      frame (EOS, bos, separator: `data.token_families`), without padding; `prompt_ids` [N] int32, the row
      of a prompt bank that each example uses; and whatever else the task declares.
    records: for each example the texts `inputs` and `targets`, and `answers`, all accepted ones; of a ranked
      task also `choices`.
    kinds: of the features beside those three (`data.features`).
    room: the largest of each dimension of these features, where it is not that of these examples: every
      part of a longer list is then padded to one shape.
    lengths: what was cut or left out.
    fingerprint: identifies the arguments and the code these examples came from.
  """

  name: str
  split: str
  features: Mapping[str, Any]
  records: Sequence[dict[str, Any]]
  lengths: LengthReport
  kinds: Mapping[str, Feature] = dataclasses.field(default_factory=dict)
  room: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
  fingerprint: str = ""

  def __post_init__(self) -> None:
    missing = {*OWN, *self.kinds} - set(self.features)
    if missing:
      raise errors.DataError(f"examples of {self.name} lack {', '.join(sorted(missing))}.")

  def __len__(self) -> int:
    return len(self.inputs)

  @property
  def inputs(self) -> Sequence[np.ndarray]:
    return self.features["inputs"]

  @property
  def targets(self) -> Sequence[np.ndarray]:
    return self.features["targets"]

  @property
  def prompt_ids(self) -> np.ndarray:
    return np.asarray(self.features["prompt_ids"])

  @functools.cached_property
  def longest(self) -> tuple[int, int]:
    """Tokens of the longest input and of the longest target."""
    return max(map(len, self.inputs)), max(map(len, self.targets))

  @functools.cached_property
  def extents(self) -> Mapping[str, tuple[int, ...]]:
    """The largest of each dimension of the features of `kinds`."""
    return {
      name: self.room.get(name) or kind.extents(self.features[name])
      for name, kind in self.kinds.items()
    }

  @functools.cached_property
  def content(self) -> identity.Part:
    """What a model sees of the examples, and the answers that are accepted."""
    digest = hashlib.sha256(np.ascontiguousarray(self.prompt_ids, np.int32).tobytes())
    for sequences in (self.inputs, self.targets):
      digest.update(np.asarray([len(tokens) for tokens in sequences], np.int64).tobytes())
      for tokens in sequences:
        digest.update(np.ascontiguousarray(tokens, np.int32).tobytes())
    for name in sorted(self.kinds):
      packed = pack(self.features[name])
      digest.update(name.encode() + packed["shapes"].tobytes() + packed["values"].tobytes())
    answers = [record.get("answers") for record in self.records]
    value = [digest.hexdigest(), answers]
    return identity.part(value, about=f"{len(self)} records of {self.name} {self.split}")

  def with_prompt_ids(self, prompt_ids: int | np.ndarray) -> "Examples":
    """The same examples with other rows of the prompt bank: one number, or one for each."""
    ids = np.broadcast_to(np.asarray(prompt_ids, dtype=np.int32), (len(self),))
    return dataclasses.replace(self, features={**self.features, "prompt_ids": ids})

  def select(self, indices: Sequence[int] | np.ndarray) -> "Examples":
    """The examples of these numbers, in this order; the length report stays that of the split."""
    return dataclasses.replace(
      self,
      features={
        name: [arrays[index] for index in indices] for name, arrays in self.features.items()
      },
      records=[self.records[index] for index in indices],
    )


def load_examples(
  name: str,
  split: str,
  feature_lengths: Mapping[str, int | None],
  *,
  limit: int | None = None,
  seed: int = 0,
  cut: Literal["auto", "end", "start"] = "auto",
  malformed: Literal["refuse", "skip"] = "refuse",
  empty_targets: Literal["refuse", "skip", "keep"] = "refuse",
  modules: Sequence[str] = (),
  vocabulary: str | None = None,
  register: Callable[[], None] | None = None,
  make: Callable[[], Any] | None = None,
  source: Callable[[], str] | None = None,
  cache_dir: str | pathlib.Path | None = None,
  use_cached: bool = False,
  whole_records: bool = False,
) -> Examples:
  """Reads one split of a seqio task.

  Args:
    name: seqio name, for example 'rte_1shot.micro'; see `tasks.resolve`.
    split: a split of the task.
    feature_lengths: longest `inputs` and `targets` in tokens, bos, EOS and separator included;
      longer ones are cut, and counted, and keep these.  None or absent = unlimited.
    limit: only the first `limit` examples, in the source's order.
    seed: chooses the demonstrations of a few-shot task.
    cut: which end of a long input is dropped.  'auto' is the start for few-shot tasks, whose query
      comes last, and where the answer goes on with the input's text, which has to be cut where it
      ends; otherwise the end, as in seqio.
    malformed: what to do about records that the task cannot render.
    empty_targets: the same for examples without target, such as unlabelled test splits.
    modules: imported to register the tasks, if the split is not in the cache.
    vocabulary: name of the task's vocabulary if it is a user's own (`vocabularies.reference`): its
      files' content then decides whether the cache is still valid.
    register: called after the imports, for a task that is registered on demand.
    make: gives the seqio task, where it is in no registry.
    source: gives a digest of the data that the task reads, such as of its files; another one than when
      the arrays were cached makes them new.
    cache_dir: keeps the arrays for later processes; None = nothing is kept.
    use_cached: read what seqio cached of the task (`seqio_cache_tasks`) instead of its source.
    whole_records: keep all of an element as its record's `example`, for a postprocessor of the task's
      own.

  Raises:
    ConfigError: no such task or split, or its data is not on this machine.
    DataError: records are malformed, targets are empty, or there is no example at all.
  """
  if cut == "auto":
    cut = cut_at(name, vocabulary)
  arguments = {
    "name": name,
    "split": split,
    "inputs": feature_lengths.get("inputs"),
    "targets": feature_lengths.get("targets"),
    "limit": limit,
    "seed": seed,
    "cut": cut,
    "malformed": malformed,
    "empty_targets": empty_targets,
    **({"use_cached": True} if use_cached else {}),
  }
  elements.bind_tasks(modules)
  made_from = {"vocabulary": vocabularies.digest(vocabulary)} if vocabulary else {}

  def made() -> str:
    data = {"data": found} if source is not None and (found := source()) else {}
    return cache.fingerprint({**arguments, **made_from, **data}, modules)

  fingerprint = made()
  if whole_records:  # elements of any kind: nothing that a cache could hold
    cache_dir = None
  path = cache.path(cache_dir, name, split, fingerprint) if cache_dir is not None else None
  stored = cache.read(path) if path else None
  if stored is None:
    task = elements.task(name, split, modules, register, make)
    told = {key: value for key, value in arguments.items() if key != "use_cached"}
    kinds = features_lib.declared(task)
    frames = split_reader.frames_of(task)
    reader = split_reader.SplitReader(
      **{**told, "name": task.name, "frames": frames, "kinds": kinds}
    )
    read = (
      elements.whole
      if whole_records
      else functools.partial(elements.rendered, features=tuple(kinds))
    )
    stored = reader.read(
      read(task, split, seed, name, use_cached, feature_lengths), whole=whole_records
    )
    fingerprint = made()  # reading may have prepared the data set
    if cache_dir is not None:
      cache.write(cache.path(cache_dir, name, split, fingerprint), stored)
  return Examples(
    name=name,
    split=split,
    features={
      "inputs": _ragged(stored["inputs"], stored["input_lengths"]),
      "targets": _ragged(stored["targets"], stored["target_lengths"]),
      "prompt_ids": np.zeros(len(stored["input_lengths"]), dtype=np.int32),
      **{name: unpack(**packed) for name, packed in stored["features"].items()},
    },
    kinds=features_lib.of_json(stored["kinds"]),
    records=stored["records"],
    lengths=LengthReport(**stored["report"]),
    fingerprint=fingerprint,
  )


def cut_at(name: str, vocabulary: str | None) -> Literal["start", "end"]:
  """Which end of a long input is dropped where nobody says it; see `load_examples`."""
  goes_on = vocabulary is not None and vocabularies.is_one_text(vocabulary)
  return "start" if goes_on or re.search(r"_\d+shot\b", name) else "end"


def in_memory(
  name: str,
  inputs: Sequence[np.ndarray],
  targets: Sequence[np.ndarray],
  records: Sequence[dict[str, Any]],
  *,
  prompt_id: int = 0,
  features: Mapping[str, Sequence[np.ndarray]] | None = None,
  kinds: Mapping[str, Feature] | None = None,
  room: Mapping[str, tuple[int, ...]] | None = None,
) -> Examples:
  """Examples that come from no seqio task.

  Args:
    features, kinds, room: what they hold beside inputs and targets; see `Examples`.
  """
  return Examples(
    name=name,
    split="all",
    features={
      "inputs": inputs,
      "targets": targets,
      "prompt_ids": np.full(len(inputs), prompt_id, np.int32),
      **(features or {}),
    },
    kinds=kinds or {},
    room=room or {},
    records=records,
    lengths=LengthReport(
      examples=len(inputs),
      inputs_limit=None,
      targets_limit=None,
      longest_input=max(map(len, inputs)),
      longest_target=max(map(len, targets)),
    ),
  )


def concatenate(parts: Sequence[Examples]) -> Examples:
  """The examples of several tasks or splits one after another, each with its own prompt ids."""
  if not parts:
    raise errors.DataError("there are no examples: no task was given.")
  if len(parts) == 1:
    return parts[0]
  require_same_features(parts)
  return Examples(
    name="+".join(dict.fromkeys(part.name for part in parts)),
    split="+".join(dict.fromkeys(part.split for part in parts)),
    features={
      "inputs": [tokens for part in parts for tokens in part.inputs],
      "targets": [tokens for part in parts for tokens in part.targets],
      "prompt_ids": np.concatenate([part.prompt_ids for part in parts]),
      **{
        name: [array for part in parts for array in part.features[name]] for name in parts[0].kinds
      },
    },
    kinds=parts[0].kinds,
    records=[record for part in parts for record in part.records],
    lengths=LengthReport(
      examples=sum(part.lengths.examples for part in parts),
      inputs_limit=max((part.lengths.inputs_limit or 0 for part in parts), default=0) or None,
      targets_limit=max((part.lengths.targets_limit or 0 for part in parts), default=0) or None,
      inputs_cut=sum(part.lengths.inputs_cut for part in parts),
      targets_cut=sum(part.lengths.targets_cut for part in parts),
      longest_input=max(part.lengths.longest_input for part in parts),
      longest_target=max(part.lengths.longest_target for part in parts),
      cut_at=parts[0].lengths.cut_at,
      input_end=parts[0].lengths.input_end,
    ),
    fingerprint="+".join(part.fingerprint for part in parts),
  )


def require_same_features(parts: Sequence[Any]) -> None:
  """Raises DataError unless splits that shall share batches declare the same features."""
  for part in parts:
    if part.kinds != parts[0].kinds:
      raise errors.DataError(
        f"{parts[0].name} and {part.name} declare different features"
        f" ({', '.join(parts[0].kinds) or 'none'}; {', '.join(part.kinds) or 'none'}); tasks that share"
        " batches declare the same."
      )


def _ragged(flat: np.ndarray, lengths: np.ndarray) -> list[np.ndarray]:
  """Views of `flat`, one for each length."""
  return np.split(flat, np.cumsum(lengths)[:-1])
