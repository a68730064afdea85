"""Writes docs/recipes.md: which command makes which row of a published table, and the headers of gin/*.gin
and gin/real/*.gin.

  python docs/write_recipes.py

A test compares the page with what this prints, so a recipe cannot be missing from it; another looks for every
row of `TABLES` in its recipe.
"""

import dataclasses
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "gin"
PAGE = pathlib.Path(__file__).resolve().parent / "recipes.md"
OVERLAY = "micro.gin"
_OWN_HEADING = ("ProMoT", "Prefix tuning", "Ensembles")
_OTHERS, _NONE = "Methods of other papers", "Of no paper"
_TOP = """# Recipes

First the published tables, each with the command that makes it; then every recipe, a file of `gin/`, whose header
has the whole command. This page is made by `python docs/write_recipes.py`.

```bash
promot train --gin_file=FILE                                    # all rows of a table, or several FILEs in order
promot train --gin_file=FILE --gin.ROWS="['promot']"            # one row, and those whose stages it takes over
promot train --gin_file=FILE --gin_file=micro.gin               # the same small (FILE_micro.gin)
```

Rows that were run apart in one `--model_dir` stand in one report; further seeds (`--gin.RANDOM_SEED=1`) go into folders
of their own, and `promot report FOLDER FOLDER` puts them together. What reads original files (its command names it)
needs `--gin.DATA_DIR="'/data'"` ([tasks](tasks.md#original-files)).

Every recipe also runs on a laptop: `NAME_micro.gin` means `NAME.gin` and then [`micro.gin`](gin.md#overlays),
except those of `real/`, which are small as they are; where the last column says more, so does a table's. Of two micro
models the T5 stands in for T5, mT5 and BART, and the decoder-only one for GPT-2, PaLM and LLaMA-like models, and each figure that they
give is one of the built-in world. Names that end in `_micro` below have no larger form. What the small forms gave is in
[results/micro.md](results/micro.md) and [results/methods.md](results/methods.md). All tables small, in one report:

```bash
launch/tables.sh                       # hours on two CPU cores; stopped, it goes on where it was
launch/tables.sh e2e ablations         # some; launch/tables.sh --dry_run prints the names and the commands
```

The report lies in `runs/tables`. Of tables that are the same model when small, one is run (the last column says
which).
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
  """How a published table, or a part of it, is made.

  paper: heading under which it stands.
  number: 'Table 3', as the paper counts.
  what: a few words, or what differs.
  files: recipes and overlays, in the order in which they are named.
  settings: macros that the command sets.
  rows: names for ROWS; empty: the recipe has one row.
  small: how it runs with micro.gin, or why not; empty: as it is.
  """

  paper: str
  number: str
  files: str
  rows: str = ""
  what: str = ""
  settings: str = ""
  small: str = ""


_PROMOT, _PREFIX, _COCKTAILS, _LECTURES = (
  "ProMoT (Wang et al., 2024)",
  "Prefix tuning (Li & Liang, 2021)",
  "Ensembles and cocktails (Hewitt et al., 2021)",
  "Adaptation in general (lecture notes)",
)
_FOUR = "pretrained prompt_tuning fine_tuning promot"
_FIVE = "fine_tuning top_layers adapter_3 adapter_0_1 prefix_tuning"

TABLES = (
  Table(
    paper=_PROMOT,
    number="2",
    what="RTE",
    files="comparison_rte.gin",
    rows="prompt_tuning fine_tuning promot",
  ),
  Table(
    paper=_PROMOT,
    number="2",
    what="WMT14 En-Fr",
    files="comparison_wmt14_enfr.gin",
    rows="prompt_tuning fine_tuning promot",
  ),
  Table(
    paper=_PROMOT,
    number="2, 10",
    what="SNLI",
    files="comparison_snli.gin",
    rows=_FOUR,
  ),
  Table(
    paper=_PROMOT,
    number="2, 10",
    what="OpenbookQA",
    files="comparison_openbookqa.gin",
    rows=_FOUR,
  ),
  Table(
    paper=_PROMOT,
    number="3",
    what="RTE",
    files="comparison_rte.gin",
    rows="pretrained fine_tuning promot promot_1shot",
  ),
  Table(
    paper=_PROMOT,
    number="4",
    what="WMT14 En-Fr",
    files="comparison_wmt14_enfr.gin",
    rows="pretrained fine_tuning promot promot_1shot",
  ),
  Table(
    paper=_PROMOT,
    number="5, 11",
    what="both tasks; Table 11 is its 4-shot half",
    files="comparison_multitask.gin",
    rows="pretrained multitask_fine_tuning multitask_promot multitask_fine_tuning_1shot"
    " multitask_promot_1shot",
  ),
  Table(
    paper=_PROMOT,
    number="6",
    what="RTE",
    files="comparison_rte.gin",
    rows="joint fine_tuning_1shot random_prompt promot_1shot",
  ),
  Table(
    paper=_PROMOT,
    number="8",
    what="sizes of the data sets",
    files="",
    settings="promot inspect data TASK",
  ),
  Table(
    paper=_PROMOT,
    number="9",
    what="RTE",
    files="comparison_rte.gin",
    rows="prompt_tuning_1shot promot_1shot",
  ),
  Table(
    paper=_PROMOT,
    number="9",
    what="WMT14 En-Fr",
    files="comparison_wmt14_enfr.gin",
    rows="prompt_tuning_1shot promot_1shot",
  ),
  Table(
    paper=_PROMOT,
    number="12",
    what="T5 1.1 XXL",
    files="comparison_rte_t5_1_1_xxl.gin",
    rows=_FOUR,
    small="the same model as Table 3's",
  ),
  Table(
    paper=_PROMOT,
    number="13",
    what="mT5 XL",
    files="comparison_wmt14_enfr_xl.gin",
    rows=_FOUR,
    small="the same model as Table 4's",
  ),
  Table(
    paper=_PROMOT,
    number="14",
    what="PaLM 8B, whose weights are not public",
    files="comparison_wmt14_enfr_palm_8b.gin",
    rows=_FOUR,
  ),
  Table(
    paper=_PROMOT,
    number="15",
    what="LoRA in the first stage",
    files="comparison_lora_wmt14_enfr.gin",
    rows="pretrained fine_tuning promot_lora_r2 promot_lora_r4 promot",
  ),
  Table(
    paper=_PREFIX,
    number="1, 5",
    what="E2E, GPT-2 medium",
    files="comparison_prefix_e2e.gin",
    rows=_FIVE,
  ),
  Table(
    paper=_PREFIX,
    number="1, 5",
    what="WebNLG, GPT-2 medium; seen, unseen and all topics",
    files="comparison_prefix_webnlg.gin",
    rows=_FIVE,
  ),
  Table(
    paper=_PREFIX,
    number="1, 5",
    what="DART, GPT-2 medium",
    files="comparison_prefix_dart.gin",
    rows=_FIVE,
  ),
  *(
    Table(
      paper=_PREFIX,
      number="1",
      what=f"{name}, GPT-2 large",
      files=f"comparison_prefix_{name.lower()}.gin models/gpt2_large.gin",
      settings="DATA_SOURCE='files'",
      rows="fine_tuning prefix_tuning",
      small="the same model as GPT-2 medium's",
    )
    for name in ("E2E", "WebNLG", "DART")
  ),
  Table(
    paper=_PREFIX,
    number="2, 5",
    what="XSum; 2 % and 0.1 %",
    files="comparison_prefix_xsum.gin",
    rows="fine_tuning prefix_tuning prefix_0_1",
  ),
  *(
    Table(
      paper=_PREFIX,
      number="3",
      what=f"XSum, {name.replace('_', ' ')}",
      files=f"comparison_prefix_xsum.gin tasks/xsum_{name}.gin",
      settings="DATA_SOURCE='files'",
      rows="fine_tuning prefix_tuning",
      small="name micro.gin last, without DATA_SOURCE",
    )
    for name in ("news_to_sports", "within_news")
  ),
  Table(
    paper=_PREFIX,
    number="4",
    what="embedding-only and infix",
    files="comparison_prefix_ablations_e2e.gin",
    rows="prefix_tuning embedding_only_1 embedding_only_10 embedding_only_20 infix_1 infix_10"
    " infix_20",
  ),
  Table(
    paper=_PREFIX,
    number="Figs 3, 6",
    what="low data, E2E; a command for each size, subsample and seed",
    files="comparison_low_data_e2e.gin",
    settings="LOW_DATA_SIZE=50 LOW_DATA_SUBSAMPLE=0 RANDOM_SEED=0",
    rows="fine_tuning prefix_tuning",
  ),
  Table(
    paper=_PREFIX,
    number="Figs 3, 6",
    what="low data, XSum; the same",
    files="comparison_low_data_xsum.gin",
    settings="LOW_DATA_SIZE=50 LOW_DATA_SUBSAMPLE=0 RANDOM_SEED=0",
    rows="fine_tuning prefix_tuning",
  ),
  Table(
    paper=_PREFIX,
    number="Fig. 4",
    what="prefix length, XSum",
    files="comparison_prefix_xsum.gin",
    settings="AXES={'prefix_tuning': {'PREFIX_LENGTH': [1, 5, 10, 50, 200, 300]}}",
    rows="prefix_tuning",
  ),
  Table(
    paper=_PREFIX,
    number="Fig. 4",
    what="prefix length, DART",
    files="comparison_prefix_dart.gin",
    settings="AXES={'prefix_tuning': {'PREFIX_LENGTH': [1, 5, 10, 20, 40]}}",
    rows="prefix_tuning",
  ),
  Table(
    paper=_PREFIX,
    number="Figs 5, 7",
    what="initialisation at 100 examples",
    files="comparison_initialisation_e2e.gin",
    settings="TASK_WORDS='summarization' UNRELATED_WORDS='divide'",
    rows="prefix_random prefix_task_words prefix_unrelated_words",
  ),
  *(
    Table(
      paper=_COCKTAILS,
      number="1, 3, 4, Figs 2 to 4",
      what=f"{what}; ensembles and cocktails at each of LIGHT_WEIGHTS",
      files=f"comparison_cocktail_{name}.gin",
      rows="fine_tuning prefix_tuning adapter",
    )
    for name, what in (
      ("webnlg", "WebNLG, ten topics and five others; GPT-2 medium"),
      ("xsum", "XSum, three categories and seventeen others; BART-large"),
      ("nq_open", "NQ-open and WebQuestions; GPT-2 medium"),
    )
  ),
  Table(
    paper=_LECTURES,
    number="out of domain",
    what="SQuAD to MRQA, F1",
    files="comparison_squad_mrqa.gin",
    rows="prompt_tuning fine_tuning",
    small="three of the six sets",
  ),
  *(
    Table(
      paper=_LECTURES,
      number="sizes",
      what=f"T5 1.1 {size}",
      files="comparison_sizes_rte.gin" + (f" models/t5_1_1_{size}.gin" if size != "small" else ""),
      rows="pretrained prompt_tuning fine_tuning",
      small="the same model as Table 3's",
    )
    for size in ("small", "base", "large", "xl", "xxl")
  ),
  Table(
    paper=_LECTURES,
    number="FLAN, T0",
    what="zero-shot on held-out data sets",
    files="comparison_templates.gin",
    small="templates of our own in place of promptsource's",
    rows="pretrained fine_tuning lora prompt_tuning promot",
  ),
)
"""In the order of the papers."""


def header(text: str) -> dict[str, str]:
  """'What' (the sentence at the top), 'Paper', 'Command', 'Hardware' and 'Expected' of a recipe."""
  found, name = {"What": ""}, "What"
  for line in text.splitlines():
    if not line.startswith("#"):
      break
    field = re.match(r"# (Paper|Command|Hardware|Expected): +(.*)", line)
    if field:
      name, found[field[1]] = field[1], field[2]
    else:
      found[name] = f"{found[name]} {line.removeprefix('#').strip()}".strip()
  return found


def page() -> str:
  """The Markdown text."""
  sections: dict[str, list[tuple[int, str, str]]] = {}
  for path in sorted([*FOLDER.glob("*.gin"), *FOLDER.glob("real/*.gin")]):
    if path.name == OVERLAY:
      continue
    found = header(path.read_text())
    paper, table = _paper_and_table(found["Paper"])
    number = int((re.search(r"Tables? (\d+)", table) or [0, "99"])[1])
    places = re.findall(r"--gin_file=(hardware/\S+\.gin)", found["Command"])
    what = found["What"].partition(": ")[0].partition("  ")[0].rstrip(".")
    where = " ".join(f"`{place}`" for place in places) or "-"
    expected = re.sub(r" +", " ", found["Expected"])
    expected = re.sub(r"docs/((?:results|methods)/\w+\.md)", r"[\1](\1)", expected)
    name = path.relative_to(FOLDER).as_posix()
    cells = (f"`{name}`", what, table, where, expected)
    sections.setdefault(paper, []).append((number, name, "| " + " | ".join(cells) + " |"))
  lines = [_TOP, *_tables()]
  order = (*_OWN_HEADING, _OTHERS, _NONE)
  for paper in sorted(sections, key=lambda name: [not name.startswith(start) for start in order]):
    lines += [
      f"## {paper}\n",
      "| recipe | what | table | hardware overlay | expected |",
      "|---|---|---|---|---|",
      *(row for _, _, row in sorted(sections[paper])),
      "",
    ]
  return "\n".join(lines)


def _tables() -> list[str]:
  lines = []
  for paper in dict.fromkeys(table.paper for table in TABLES):
    lines += [
      f"## Tables: {paper}\n",
      "| table | what | files | settings | rows | with micro.gin |",
      "|---|---|---|---|---|---|",
    ]
    for table in TABLES:
      if table.paper == paper:
        names = [" ".join(f"`{n}`" for n in each.split()) for each in (table.files, table.rows)]
        settings = f"`{table.settings}`" if table.settings else ""
        cells = (table.number, table.what, names[0], settings, names[1], table.small)
        lines.append("| " + " | ".join(cell or "-" for cell in cells) + " |")
    lines.append("")
  return lines


def _paper_and_table(text: str) -> tuple[str, str]:
  """Heading and table of 'Title (Authors, year), table'."""
  if text.startswith("none: "):
    return _NONE, text.removeprefix("none: ")
  title, _, table = text.partition("), ")
  return (f"{title})", table) if title.startswith(_OWN_HEADING) else (_OTHERS, text)


if __name__ == "__main__":
  PAGE.write_text(page())
