"""What was cut or left out when a split was read, in one line for the user."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthReport:
  """What happened to the lengths of a split; `str` is the line to show the user.

  Attributes:
    examples: number of examples kept.
    inputs_limit, targets_limit: the feature lengths, in tokens with EOS; None = unlimited.
    inputs_cut, targets_cut: how many examples were longer.
    longest_input, longest_target: tokens before cutting.
    cut_at: which end of a long input was dropped.
    input_end: what a cut input still ends with, 'EOS', 'separator' before a decoder-only target, or
      'its end', with which the target goes on.
    empty_inputs, empty_targets: how many kept examples consist of EOS (or bos, separator) only.
    skipped: how many records were left out, by reason.
  """

  examples: int
  inputs_limit: int | None
  targets_limit: int | None
  inputs_cut: int = 0
  targets_cut: int = 0
  longest_input: int = 0
  longest_target: int = 0
  cut_at: str = "end"
  input_end: str = "EOS"
  empty_inputs: int = 0
  empty_targets: int = 0
  skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    parts = []
    for side, cut, limit in (
      ("inputs", self.inputs_cut, self.inputs_limit),
      ("targets", self.targets_cut, self.targets_limit),
    ):
      if cut:
        share = 100.0 * cut / self.examples
        where = " at the start" if side == "inputs" and self.cut_at == "start" else ""
        kept = self.input_end if side == "inputs" else "EOS"
        parts.append(
          f"{side} cut{where}: {cut} of {self.examples} ({share:.1f} %) > {limit} tokens; {kept} kept"
        )
    for side, count in (("inputs", self.empty_inputs), ("targets", self.empty_targets)):
      if count:
        parts.append(f"{side} empty: {count} of {self.examples}")
    parts += [f"records skipped: {count} ({reason})" for reason, count in self.skipped.items()]
    # A line in any case: silence could mean that nobody looked.
    if parts:
      return "; ".join(parts)
    return (
      f"nothing cut: {self.examples} examples, longest input {self.longest_input},"
      f" longest target {self.longest_target} tokens"
    )
