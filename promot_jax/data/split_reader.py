"""Cuts, counts and collects the elements of one split, and refuses what cannot be used."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from promot_jax import errors
from promot_jax.data import features as features_lib
from promot_jax.data import frames as frames_lib
from promot_jax.data.features import Feature, pack
from promot_jax.data.length_report import LengthReport

_SHOWN = 3  # examples of unusable records in an error message


class SplitReader:
  """Cuts, counts and collects the elements of one split."""

  def __init__(
    self, *, name, split, inputs, targets, limit, seed, cut, malformed, empty_targets, frames, kinds
  ):
    self._where = f"{name}, split {split}"
    self._limits = {"inputs": inputs, "targets": targets}
    self._limit, self._cut_at = limit, cut
    self._kinds: Mapping[str, Feature] = kinds
    self._frames: Mapping[str, frames_lib.Frame] = frames
    self._policies = {"malformed records": malformed, "empty targets": empty_targets}
    self._problems: dict[str, list[str]] = {"malformed records": [], "empty targets": []}
    for side, length in self._limits.items():
      # One token of text beside what stands around it.
      least = 1 + max(1, len(self._frames[side]))
      if length is not None and length < least:
        raise errors.ConfigError(
          f"feature length of the {side} is {length}; at least {least} tokens are needed, EOS"
          " (or separator) included."
        )
    if limit is not None and limit < 1:
      raise errors.ConfigError(f"limit is {limit}; it must be at least 1 example, or None.")

  def read(self, elements: Iterator[Mapping[str, Any]], *, whole: bool) -> dict[str, Any]:
    """What a cached split holds (`cache`).

    Args:
      whole: keep each element in its record.
    """
    tokens: dict[str, list[np.ndarray]] = {"inputs": [], "targets": []}
    records: list[dict[str, Any]] = []
    before: dict[str, list[int]] = {"inputs": [], "targets": []}  # lengths before cutting
    others: dict[str, list[np.ndarray]] = {name: [] for name in self._kinds}
    empty = {side: len(frame) for side, frame in self._frames.items()}
    number = -1
    for number, element in enumerate(elements):
      if not self.is_usable(number, element):
        continue
      for side in tokens:
        before[side].append(len(element[side]))
        tokens[side].append(self.cut(side, np.asarray(element[side], np.int32)))
      for name, kind in self._kinds.items():
        if name not in element:
          raise errors.DataError(f"{self._where}: record {number} lacks feature '{name}'.")
        others[name].append(kind.array(name, element[name]))
      records.append(record_of(element, whole=whole))
      # Usable ones count: what was left out takes nothing of the limit.
      if self._limit is not None and len(records) == self._limit:
        break
    # At the end, so that one sentence tells of all that is wrong.
    self.refuse(number + 1)
    if not records:
      left_out = sum(map(len, self._problems.values()))
      raise errors.DataError(
        f"{self._where} has no usable example ({number + 1} records read, {left_out} left out)."
      )
    lengths = {side: np.array(before[side]) for side in before}
    report = LengthReport(
      examples=len(records),
      inputs_limit=self._limits["inputs"],
      targets_limit=self._limits["targets"],
      inputs_cut=self._count_cut(lengths, "inputs"),
      targets_cut=self._count_cut(lengths, "targets"),
      longest_input=int(lengths["inputs"].max()),
      longest_target=int(lengths["targets"].max()),
      cut_at=self._cut_at,
      input_end=self._input_end(),
      empty_inputs=int((lengths["inputs"] <= empty["inputs"]).sum()),
      empty_targets=int((lengths["targets"] <= empty["targets"]).sum()),
      skipped=self.skipped,
    )
    return {
      "inputs": np.concatenate(tokens["inputs"]),
      "input_lengths": np.array([len(part) for part in tokens["inputs"]], np.int64),
      "targets": np.concatenate(tokens["targets"]),
      "target_lengths": np.array([len(part) for part in tokens["targets"]], np.int64),
      "features": {name: pack(arrays) for name, arrays in others.items()},
      "kinds": features_lib.to_json(self._kinds),
      "records": records,
      "report": dataclasses.asdict(report),
    }

  def is_usable(self, number: int, element: Mapping[str, Any]) -> bool:
    """Whether an element is an example; what is wrong with another one is noted."""
    problem = _text(element.get("problem", b""))
    if problem:
      self._note("malformed records", number, problem)
      return False
    is_empty = len(element["targets"]) <= len(self._frames["targets"])
    if is_empty and self._policies["empty targets"] != "keep":
      self._note("empty targets", number, _text(element.get("inputs_pretokenized", b"")))
      return False
    return True

  def cut(self, side: str, tokens: np.ndarray) -> np.ndarray:
    """The tokens of a side without what is too much of them."""
    limit = self._limits[side]
    if limit is None:
      return tokens
    at_start = side == "inputs" and self._cut_at == "start"
    return self._frames[side].cut(tokens, limit, at="start" if at_start else "end")

  def _count_cut(self, lengths: Mapping[str, np.ndarray], side: str) -> int:
    limit = self._limits[side]
    return 0 if limit is None else int((lengths[side] > limit).sum())

  def _input_end(self) -> str:
    last = self._frames["inputs"].suffix
    if not last:
      return "its end"
    return "EOS" if last == self._frames["targets"].suffix else "separator"

  def _note(self, reason: str, number: int, text: str) -> None:
    self._problems[reason].append(f"record {number}: {text[:200]}")

  @property
  def skipped(self) -> dict[str, int]:
    """How many elements were no examples, by the reason."""
    return {reason: len(found) for reason, found in self._problems.items() if found}

  def refuse(self, read: int) -> None:
    """Raises DataError where one of the elements that were read is to be refused."""
    for reason, found in self._problems.items():
      if found and self._policies[reason] == "refuse":
        option = "MALFORMED" if reason == "malformed records" else "EMPTY_TARGETS"
        raise errors.DataError(
          f"{self._where}: {len(found)} of {read} records have to be refused ({reason}):"
          f" {' | '.join(found[:_SHOWN]).removesuffix('.')}. Correct the data, or leave them out and"
          f" have them counted: --gin.{option}=\"'skip'\"."
        )


def frames_of(task) -> dict[str, frames_lib.Frame]:
  """What stands around the inputs and the targets of a seqio task."""
  sides: tuple[frames_lib.Side, ...] = ("inputs", "targets")
  return {side: frames_lib.of_feature(task.output_features[side], side) for side in sides}


def record_of(element: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
  """The texts of an element, as `Examples.records` has them; with all of it where it is asked for `whole`."""
  target = _text(element.get("targets_pretokenized", b""))
  answers, choices = element.get("answers"), element.get("answer_choices")
  return {
    "inputs": _text(element.get("inputs_pretokenized", b"")),
    "targets": target,
    "answers": [target] if answers is None or whole else [_text(answer) for answer in answers],
    **({} if choices is None or whole else {"choices": [_text(choice) for choice in choices]}),
    **({"example": element} if whole else {}),
  }


def _text(value: Any) -> str:
  if isinstance(value, bytes):
    return value.decode("utf-8", errors="replace")
  return str(value)
