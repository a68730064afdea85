"""The figures that reports quote beside ours: of Wang et al. 2024 (ProMoT), Li & Liang 2021 (prefix tuning) and
Hewitt et al. 2021 (ensembles and cocktails).

`published.csv` holds Tables 2-6 and 9-15 of the first, 1-4 of the second and 1 of the third, one printed number a
row with the printed digits.
Columns: source, table, model, trained_on, method, eval_task, split, shots, metric, value, note; an empty
`shots` means the paper does not state it.  Task names are ours.
"""

import csv
import dataclasses
import decimal
import functools
import importlib.resources
from collections.abc import Mapping

PAPER = "Wang et al. 2024"
PAPERS: Mapping[str, str] = {
  "wang2024": PAPER,
  "li2021": "Li & Liang 2021",
  "hewitt2021": "Hewitt et al. 2021",
}

ROWS: Mapping[str, str] = {
  "pretrained": "Pretrained",
  "fine_tuning": "Standard fine-tuning",
  "promot": "ProMoT",
  "promot_1shot": "ProMoT + 1-shot",
  "prompt_tuning": "Prompt tuning",
  "prompt_tuning_1shot": "Prompt tuning + 1-shot",
  "joint": "Joint tuning",
  "fine_tuning_1shot": "Fine-tuning + 1-shot",
  "random_prompt": "Fixed random prompt",
  "multitask_fine_tuning": "Multi-task fine-tuning",
  "multitask_promot": "Multi-task ProMoT",
  "multitask_fine_tuning_1shot": "Multi-task fine-tuning + 1-shot",
  "multitask_promot_1shot": "Multi-task ProMoT + 1-shot",
}
"""The rows of its Tables 3, 6 and 5, which come first in a report, with their names in print."""


_SHARES = frozenset({"meteor", "ter", "moverscore", "bertscore", "bleurt"})
"""Metrics that some tables print from 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
  """One printed number: `text` has its digits, `paper` and `table` where it stands."""

  paper: str
  table: int
  model: str
  trained_on: str
  method: str
  task: str
  split: str
  shots: int | None
  metric: str
  text: str
  note: str

  @property
  def value(self) -> float:
    return float(self.text)

  @property
  def hundredfold(self) -> str:
    """The printed digits on our scale: METEOR of WebNLG is printed as 0.45, of E2E as 46.2, and ours is 45."""
    if self.metric not in _SHARES or abs(self.value) > 1:
      return self.text
    return str(decimal.Decimal(self.text).scaleb(2))

  @property
  def source(self) -> str:
    """Where the number is printed, for the reader: `Wang et al. 2024, Table 3`."""
    return f"{self.paper}, Table {self.table}"


@functools.cache
def figures() -> tuple[Figure, ...]:
  """Every quoted number, in the order of the tables."""
  file = importlib.resources.files("promot_jax.evaluation") / "published.csv"
  return tuple(
    Figure(
      paper=PAPERS[row["source"]],
      table=int(row["table"]),
      model=row["model"],
      trained_on=row["trained_on"],
      method=row["method"],
      task=row["eval_task"],
      split=row["split"],
      shots=int(row["shots"]) if row["shots"] else None,
      metric=row["metric"],
      text=row["value"],
      note=row["note"],
    )
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines())
  )


def find(
  *, trained_on: str, method: str, task: str, shots: int | None, metric: str | None = None
) -> Figure | None:
  """The number that Wang et al. print of mT5 XXL for a method trained on a task, or None.

  The pretrained model's numbers hold whatever was trained on.  Of several tables with the same
  number the main one (lowest number) is cited, but Table 2 only where no other table has it, so
  that the columns of a report come from one table each.
  """
  matching = [
    figure
    for figure in figures()
    if (figure.paper, figure.model, figure.method) == (PAPER, "mt5_xxl", method)
    and is_of(figure, trained_on)
    and figure.task == task
    and figure.shots == shots
    and (figure.metric == metric if metric else figure.metric != "difference_from_pretrained")
  ]
  home = home_table(trained_on)
  matching.sort(key=lambda figure: (figure.table != home, figure.table == 2, figure.table))
  return matching[0] if matching else None


def home_table(trained_on: str) -> int | None:
  """The table whose layout a report on this training task follows."""
  tables = {"rte": 3, "wmt14_en_fr": 4, "rte+wmt14_en_fr": 5, "snli": 10, "openbookqa": 10}
  return tables.get(plus_joined(trained_on))


def plus_joined(trained_on: str) -> str:
  """The tables' name of a mixture: `rte_and_wmt14_en_fr` is written `rte+wmt14_en_fr` there."""
  return trained_on.replace("_and_", "+")


def is_of(figure: Figure, trained_on: str) -> bool:
  """Whether a figure is of a model trained so; those of the pretrained model hold whatever was trained on."""
  trained = plus_joined(trained_on)
  # Table 10 prints prompt tuning on SNLI and on OpenbookQA once: without its prompt it is the
  # pretrained model.
  both = figure.trained_on == "snli_or_openbookqa" and trained in ("snli", "openbookqa")
  return figure.trained_on == ("none" if figure.method == "pretrained" else trained) or both
