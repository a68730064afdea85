"""What combined weights say of themselves: README.md for people and hubs, combination.json for programs."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from promot_jax import __version__, guarded_json

README = "README.md"
RECORD = "combination.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parent:
  """One of the networks.

  where: as the command named it.
  identity: tells its values apart; empty where that takes reading them.
  role: 'base' or 'member'.
  counts: whether it is a part of the result; a choice may leave some out.
  facts: what is known of its training, by name: task, data, seed, step, score on validation.
  """

  where: str
  identity: str
  role: str = "member"
  counts: bool = True
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """How weights were made.

  operation: with its settings.
  parents: in the order of the operation.
  chosen_by: what was tried on validation to choose, if anything was.
  trials: what was tried: operation, networks, score, whether it was kept.
  """

  operation: str
  parents: Sequence[Parent]
  chosen_by: str = ""
  trials: Sequence[Mapping[str, Any]] = ()


def texts(card: Card) -> dict[str, str]:
  """The files by name."""
  return {README: _readme(card), RECORD: guarded_json.text(_record(card))}


def _record(card: Card) -> dict[str, Any]:
  return {"version": __version__, **dataclasses.asdict(card)}


def _readme(card: Card) -> str:
  lines = ["---"]
  # JSON is YAML, and quotes what a path may hold.
  lines += [f"base_model: {json.dumps([parent.where for parent in card.parents])}"]
  lines += ["tags: [merge]", "---", "", "# Weights of several networks", ""]
  lines += [
    f"Made by `promot combine` (promot_jax {__version__}); nothing was trained. The same in full is in"
    f" `{RECORD}`.",
    "",
    f"Operation: `{card.operation}`",
    "",
    "| | network | known of it | identity |",
    "|---|---|---|---|",
  ]
  for parent in card.parents:
    role = parent.role if parent.counts else "left out"
    facts = "; ".join(f"{name} {_cell(value)}" for name, value in parent.facts.items())
    lines.append(
      f"| {role} | `{_cell(parent.where)}` | {facts or 'nothing'} | `{_cell(parent.identity) or '-'}` |"
    )
  if card.trials:
    lines += ["", f"Chosen by {card.chosen_by}, on validation only:", ""]
    lines += ["| tried | networks | score | kept |", "|---|---|---|---|"]
    for trial in card.trials:
      numbers = ", ".join(str(number + 1) for number in trial["members"])
      kept = "yes" if trial["kept"] else "no"
      lines.append(f"| `{trial['operation']}` | {numbers} | {trial['score']:.6g} | {kept} |")
  return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
  """A value that cannot leave its cell of a table."""
  text = f"{value:.6g}" if isinstance(value, float) else str(value)
  return " ".join(text.split()).replace("|", "\\|").replace("`", "'")
