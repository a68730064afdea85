"""The documentation names what there is: links, macros, objects, commands."""

import ast
import importlib
import importlib.util
import pathlib
import re

import pytest

from promot_jax.cli import flags

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted([*(REPOSITORY / "docs").rglob("*.md"), *REPOSITORY.glob("*.md")])
TABLE_ROW = re.compile(r"^\| (?!---)(.+) \|$", re.MULTILINE)
ABBREVIATIONS = {"T5X", "TPU", "VM", "RUN", "FOLDER", "RECIPE", "D", "F"}


def modules() -> dict[str, list[str]]:
  """Last name of every module of ours -> its whole names."""
  found: dict[str, list[str]] = {}
  for path in (REPOSITORY / "promot_jax").rglob("*.py"):
    name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    found.setdefault(path.stem, []).append(name)
  return found


def macros() -> set[str]:
  """Names of the macros that the recipes bind."""
  text = "\n".join(path.read_text() for path in (REPOSITORY / "gin").rglob("*.gin"))
  return set(re.findall(r"^([A-Z][A-Z0-9_]+) *=", text, re.MULTILINE)) | {"MODEL_DIR"}


def has(module: str, names: list[str]) -> bool:
  """Whether a module has an object, or a class or function of it a field or parameter."""
  found = importlib.import_module(module)
  for position, name in enumerate(names):
    fields = getattr(found, "__dataclass_fields__", {})
    code = getattr(found, "__code__", None)
    if name in fields or (code and name in code.co_varnames):
      return position == len(names) - 1
    if not hasattr(found, name):
      return False
    found = getattr(found, name)
  return True


def ours() -> list[str]:
  """The right column of every row of the page for users of T5X and PEFT."""
  page = (REPOSITORY / "docs" / "coming_from.md").read_text()
  # A '|' inside of backticks is part of a pattern.
  return [row.split("` |", 1)[-1].rsplit(" | ", 1)[-1] for row in TABLE_ROW.findall(page)]


def test_names_for_users_of_t5x_and_peft_exist():
  known, bound, wrong, checked = modules(), macros(), [], 0
  for column in ours():
    for text in re.findall(r"`([^`]+)`", column):
      dotted = re.fullmatch(r"([a-z_0-9]+)\.([A-Za-z_.0-9]+)", text)
      macro = re.fullmatch(r"([A-Z][A-Z0-9_]+)(=.*)?", text)
      if dotted and dotted[1] in known:
        checked += 1
        names = dotted[2].split(".")
        if not any(has(module, names) for module in known[dotted[1]]):
          wrong.append(text)
      elif macro and macro[1] not in ABBREVIATIONS:
        checked += 1
        if macro[1] not in bound:
          wrong.append(text)
  assert not wrong
  assert checked > 40


def test_flags_for_users_of_t5x_and_peft_exist():
  text = "\n".join(ours())
  names = set(re.findall(r"(--[a-z_0-9]+)", text)) - {"--gin"}
  source = (REPOSITORY / "promot_jax" / "cli").glob("*.py")
  defined = {
    node.value
    for path in source
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Constant) and isinstance(node.value, str)
  }
  assert names and names <= defined, names - defined
  assert flags.COMMANDS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(REPOSITORY).as_posix())
def test_links_of_a_page_lead_somewhere(page):
  text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
  wrong = []
  for target in re.findall(r"\]\(([^)\s]+)\)", text):
    if target.startswith(("http://", "https://", "#")):
      continue
    file, _, anchor = target.partition("#")
    place = (page.parent / file).resolve()
    if not place.exists() or (anchor and place.suffix == ".md" and anchor not in anchors(place)):
      wrong.append(target)
  assert not wrong


def anchors(page: pathlib.Path) -> set[str]:
  """What GitHub makes of a page's headings."""
  headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
  plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
  return {heading.strip().replace(" ", "-") for heading in plain}


def test_the_example_runs():
  spec = importlib.util.spec_from_file_location("docs_example", REPOSITORY / "docs/example.py")
  example = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(example)
  measured = example.main(steps=20, items=32)
  assert measured["CB, tuned, method off"] == measured["CB"] > 50, measured
  assert measured["RTE, tuned"] != measured["RTE"]


def test_python_in_the_readme_runs():
  blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
  assert blocks
  for block in blocks:
    exec(compile(block, "README.md", "exec"), {})
