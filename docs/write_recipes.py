"""Writes docs/recipes.md from the headers of gin/*.gin.

  python docs/write_recipes.py

A test compares the page with what this prints, so a recipe cannot be missing from it.
"""

import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "gin"
PAGE = pathlib.Path(__file__).resolve().parent / "recipes.md"
OVERLAY = "micro.gin"
_OWN_HEADING = ("ProMoT", "Prefix tuning", "Ensembles")
_OTHERS, _NONE = "Methods of other papers", "Of no paper"
_TOP = """# Recipes

By paper and table. Each line is a file of `gin/`; its header has the whole command. This page is made from the
headers by `python docs/write_recipes.py`.

Every recipe also runs on a laptop: `NAME_micro.gin` means `NAME.gin` and then [`micro.gin`](gin.md#overlays),
except `infix_tune_rte.gin`, whose method needs a decoder-only model. Names that end in `_micro` below have no
larger form. What the small forms gave is in [results/micro.md](results/micro.md) and
[results/methods.md](results/methods.md).
"""


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
  for path in sorted(FOLDER.glob("*.gin")):
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
    cells = (f"`{path.name}`", what, table, where, expected)
    sections.setdefault(paper, []).append((number, path.name, "| " + " | ".join(cells) + " |"))
  lines = [_TOP]
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


def _paper_and_table(text: str) -> tuple[str, str]:
  """Heading and table of 'Title (Authors, year), table'."""
  if text.startswith("none: "):
    return _NONE, text.removeprefix("none: ")
  title, _, table = text.partition("), ")
  return (f"{title})", table) if title.startswith(_OWN_HEADING) else (_OTHERS, text)


if __name__ == "__main__":
  PAGE.write_text(page())
