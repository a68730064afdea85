"""The papers' own tables, with our figures in them."""

import pathlib
import re

import pytest

from hand_made_results import answer_by_hand, evaluate_by_hand
from promot_jax.evaluation import paper_tables, published, runs, sections


def of(folder):
  return {
    table.title.split(":")[0]: table
    for table in paper_tables.of_groups(runs.group(runs.collect([folder])))
  }


def cell(table, label, group, kind):
  (row,) = [row for row in table.rows if row.label == label]
  (place,) = [
    place
    for place, column in enumerate(table.columns)
    if (column.group, column.kind) == (group, kind)
  ]
  return row.cells[place]


def test_table_3_has_its_columns_and_our_figures_in_them(tmp_path):
  evaluate_by_hand(tmp_path / "a", "pretrained", tuned=36.0, unseen=45.0, shots=(1, 4))
  evaluate_by_hand(tmp_path / "b", "promot", unseen=41.0, shots=(1, 4))
  table = of(tmp_path)["Table 3 of Wang et al. 2024"]
  names = ["Pretrained", "Standard fine-tuning", "ProMoT", "ProMoT + 1-shot"]
  assert [name for name, _ in table.groups()] == [
    f"{name}, {shots}-shot" for name in names for shots in (1, 4)
  ]
  assert [row.label for row in table.rows][:4] == ["rte", "Norm. Avg", "cb", "wic"]
  ours = cell(table, "Norm. Avg", "ProMoT, 4-shot", "ours")
  assert (ours.value, ours.difference) == (41.0, -4.0)
  quoted = cell(table, "Norm. Avg", "ProMoT, 4-shot", "quoted")
  assert quoted.text() == "21.24 (+2.49)"
  assert quoted.source == "Wang et al. 2024, Table 3"
  # The tuned task is printed across the numbers of shots of a method.
  assert cell(table, "rte", "ProMoT, 1-shot", "ours").value == 90
  assert cell(table, "rte", "ProMoT, 4-shot", "ours") is None
  # Nobody ran fine-tuning: it has its printed column alone.
  kinds = [c.kind for c in table.columns if c.group == "Standard fine-tuning, 1-shot"]
  assert kinds == ["quoted"]


def test_what_is_unlike_is_said_below(tmp_path):
  evaluate_by_hand(tmp_path / "b", "promot", settings={"model: steps": 300})
  notes = of(tmp_path)["Table 3 of Wang et al. 2024"].notes
  assert "mt5_xxl" in notes[0] and "not ours" in notes[0]
  assert "model: T5 tiny" in notes[1]
  assert "rte test 50" in notes[1]
  assert "model: steps 300" in notes[1]


def test_a_table_needs_a_tuned_model_of_it(tmp_path):
  evaluate_by_hand(tmp_path / "a", "pretrained")
  assert of(tmp_path) == {}
  evaluate_by_hand(tmp_path / "b", "joint")
  assert set(of(tmp_path)) == {"Table 6 of Wang et al. 2024"}


def test_other_data_of_the_same_name_get_no_published_figures(tmp_path):
  evaluate_by_hand(tmp_path / "b", "promot", own_tasks=("rte",))
  assert of(tmp_path) == {}


def test_a_mixture_stands_in_the_tables_of_mixtures(tmp_path):
  evaluate_by_hand(tmp_path / "b", "multitask_promot", trained_on="rte_and_wmt14_en_fr")
  assert set(of(tmp_path)) == {"Table 5 of Wang et al. 2024", "Table 11 of Wang et al. 2024"}


@pytest.mark.parametrize(
  ("task", "method", "metric", "title", "row", "column", "printed"),
  [
    ("e2e", "prefix_tuning", "nist", "Table 1", "gpt2_medium", "e2e, nist", "8.81"),
    ("e2e", "prefix_tuning", "bleu", "Table 4", "Prefix tuning", "bleu", "69.7"),
    ("e2e", "infix_10", "bleu", "Table 4", "Infix, 10", "bleu", "67.2"),
    ("xsum", "prefix_tuning", "rougeL", "Table 2", "Prefix tuning, 2 %", "rougel", "36.05"),
    ("xsum", "prefix_0_1", "rougeL", "Table 2", "Prefix tuning, 0.1 %", "rougel", "35.05"),
    ("xsum_news_to_sports", "prefix_tuning", "rouge2", "Table 3", "Prefix tuning", None, "16.74"),
  ],
)
def test_rows_of_prefix_tuning_stand_in_the_tables_of_their_paper(
  tmp_path, task, method, metric, title, row, column, printed
):
  answer_by_hand(tmp_path / "a", method, [("q", ["x"], "y")], task=task, metric=metric)
  table = of(tmp_path)[f"{title} of Li & Liang 2021"]
  column = column or f"tuned on {task}, {metric}"
  (found,) = [
    line
    for line in table.rows
    if line.label == row and ("Prefix" in line.label + line.detail or row.startswith("Infix"))
  ]
  places = {c.kind: i for i, c in enumerate(table.columns) if c.group == column}
  assert found.cells[places["ours"]].value == 50
  assert found.cells[places["quoted"]].printed == printed


def test_every_printed_method_has_a_name_for_readers():
  assert {each.method for each in published.figures()} <= set(paper_tables.PRINTED)


@pytest.mark.parametrize(
  ("task", "metric", "row", "printed"),
  [
    ("webnlg", "meteor", "test_seen", ("0.45", "45")),
    ("webnlg", "ter", "test_unseen", ("0.76", "76")),
    ("dart", "bertscore", "test", ("0.94", "94")),
    ("e2e", "meteor", "test", ("46.2", "46.2")),
    ("e2e", "nist", "test", ("8.62", "8.62")),  # whose scale is its own
  ],
)
def test_printed_shares_are_quoted_on_our_scale(task, metric, row, printed):
  (figure,) = [
    figure
    for figure in published.figures()
    if (figure.paper, figure.table, figure.model) == ("Li & Liang 2021", 1, "gpt2_medium")
    and (figure.method, figure.task, figure.metric, figure.split)
    == ("fine_tuning", task, metric, row)
  ]
  quoted = paper_tables._quoted(figure, None)
  assert (figure.text, quoted.printed) == printed
  assert quoted.value == float(printed[1])


def test_every_name_that_a_printed_method_has_here_is_an_experiment_of_a_recipe():
  recipes = pathlib.Path(__file__).resolve().parents[2] / "gin"
  text = "\n".join(path.read_text() for path in recipes.rglob("*.gin"))
  names = set(re.findall(r"^(?:  |.*Experiment\.)name = '(\w+)'", text, re.MULTILINE))
  known = {*paper_tables._METHODS.values(), *paper_tables._XSUM_METHODS.values()}
  assert len(names) > 30 and known <= names, known - names


def test_few_training_examples_have_a_section_of_their_own_and_no_printed_numbers(tmp_path):
  whole = {"trained_on": "e2e", "backbone_trained": False}
  evaluate_by_hand(tmp_path / "pretrained", "pretrained")
  for number in (0, 1):
    few = {**whole, "training_examples": 100, "subsample": number}
    evaluate_by_hand(tmp_path / f"few_{number}", "prefix_tuning", **few)
  evaluate_by_hand(tmp_path / "fifty", "prefix_tuning", **whole, training_examples=50, subsample=0)
  assert of(tmp_path) == {}
  evaluate_by_hand(tmp_path / "whole", "prefix_tuning", **whole)
  groups = runs.group(runs.collect([tmp_path]))
  # Two subsamples of one seed are two runs; the pretrained model is beside all.
  assert [(g.training_examples, {m: len(r) for m, r in g.runs.items()}) for g in groups] == [
    (None, {"pretrained": 1, "prefix_tuning": 1}),
    (50, {"pretrained": 1, "prefix_tuning": 1}),
    (100, {"pretrained": 1, "prefix_tuning": 2}),
  ]
  assert sections.section(groups[2]).title == "Tuned on e2e, 100 training examples"


def test_every_number_of_a_laid_out_table_has_its_place():
  for layout in paper_tables.LAYOUTS:
    figures = [
      figure
      for figure in published.figures()
      if (figure.paper, figure.table) == (layout.paper, layout.table)
      and figure.metric != "difference_from_pretrained"
    ]
    places = [
      (
        paper_tables._key(figure, layout.rows),
        paper_tables._column(figure, figures, layout),
      )
      for figure in figures
    ]
    assert figures
    assert len(set(places)) == len(places), layout
