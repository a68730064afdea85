"""The layers of docs/architecture: who may import whom, read from the source with `ast`."""

import ast
import itertools
import pathlib
import re

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

PAGE = (REPOSITORY / "docs" / "architecture.md").read_text()


def everyone() -> set[str]:
  """What the page says that all may import."""
  (sentence,) = re.findall(r"everyone may import (.*?)\.\s", PAGE, re.DOTALL)
  return set(re.findall(r"`(\w+)`", sentence))


def table() -> dict[str, set[str]]:
  """Room -> rooms that it may import, of the page's table."""
  rows = re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", PAGE, re.MULTILINE)
  return {room: set(re.findall(r"`([\w.]+)`", allowed)) for room, allowed in rows}


EVERYONE = everyone()
# Room -> rooms it may import (itself and EVERYONE are always allowed).
ALLOWED = {**{room: set() for room in EVERYONE}, **table()}
# Light layers: what they may never import, at the top of a file or inside a function.
NEVER = {
  "metrics": {"jax", "flax", "optax", "tensorflow", "seqio"},
  "micro": {"jax", "flax", "optax"},
  "tasks": {"jax", "flax", "optax"},
}
HEAVY_READERS = {"tensorflow", "seqio", "tensorflow_datasets", "transformers"}
# Files that are only about reading data, and may import seqio at their top.
READERS = re.compile(r"tasks/.*|promot_jax/data/examples\.py|promot_jax/micro/sources\.py")


def python_files() -> list[pathlib.Path]:
  found = [*(REPOSITORY / "promot_jax").rglob("*.py"), *(REPOSITORY / "tasks").rglob("*.py")]
  assert len(found) > 2
  return sorted(found)


def relative(path: pathlib.Path) -> str:
  return path.relative_to(REPOSITORY).as_posix()


def layer_of(path: pathlib.Path) -> str:
  parts = path.relative_to(REPOSITORY).with_suffix("").parts
  if parts[0] == "tasks":
    return "tasks"
  return parts[1] if len(parts) > 1 else parts[0]


def imports(path: pathlib.Path, *, top_only: bool = False) -> list[tuple[int, str]]:
  """(line, dotted module) of every import; `from a import b` gives a.b."""
  tree = ast.parse(path.read_text())
  nodes = tree.body if top_only else list(ast.walk(tree))
  found = []
  for node in nodes:
    if isinstance(node, ast.Import):
      found += [(node.lineno, alias.name) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      if node.level:
        base = list(path.relative_to(REPOSITORY).parts[: -node.level])
        module = ".".join([*base, *([node.module] if node.module else [])])
      else:
        module = node.module or ""
      found += [(node.lineno, f"{module}.{alias.name}") for alias in node.names]
  return found


def may_import(layer: str, module: str) -> bool:
  name = module.removeprefix("promot_jax.")
  top = name.split(".")[0]
  if top == layer or top in EVERYONE or name.startswith("__version__"):
    return True
  if layer == "cli":
    return True
  return any(name == allowed or name.startswith(allowed + ".") for allowed in ALLOWED[layer])


def test_every_import_is_in_the_table_of_layers():
  wrong = []
  for path in python_files():
    layer = layer_of(path)
    if layer in ("__init__", "__main__"):
      continue
    assert layer in ALLOWED or layer == "cli", f"{relative(path)} belongs to no layer of the table"
    for line, module in imports(path):
      ours = module.startswith("promot_jax.") or module.split(".")[0] in ("tasks", "tests")
      if ours and not may_import(layer, module):
        wrong.append(f"{relative(path)}:{line} imports {module}")
  assert not wrong, "\n".join(wrong)


def test_the_table_allows_nothing_that_no_file_needs():
  used = {room: set() for room in ALLOWED}
  for path in python_files():
    layer = layer_of(path)
    for _, module in imports(path):
      name = module.removeprefix("promot_jax.")
      used.get(layer, set()).update(
        allowed for allowed in ALLOWED.get(layer, ()) if f"{name}.".startswith(f"{allowed}.")
      )
  stale = {room: ALLOWED[room] - used[room] for room in ALLOWED if room != "cli"}
  assert not {room: rooms for room, rooms in stale.items() if rooms}


def test_the_picture_shows_arrows_of_the_table_only():
  (picture,) = re.findall(r"```mermaid\n(.*?)```", PAGE, re.DOTALL)
  arrows = []
  for line in picture.splitlines():
    rooms = line.strip().split(" --> ")
    arrows += itertools.pairwise(rooms)
  assert len(arrows) > 10
  for start, end in arrows:
    assert start == "cli" or any(name.split(".")[0] == end for name in ALLOWED[start]), (start, end)


def test_a_method_never_imports_another_method():
  wrong = []
  for path in (REPOSITORY / "promot_jax" / "methods").glob("*.py"):
    for line, module in imports(path):
      name = module.removeprefix("promot_jax.methods.").split(".")[0]
      shared = {
        "base",
        "copies",
        "discovery",
        "files",
        "formats",
        "initializers",
        "linears",
        "settings",
      }
      shared |= {"sites"}
      # A method too long for one file has its parts in files that begin with its name.
      own = name.startswith(path.stem.split("_")[0])
      own |= (path.stem, name) == ("initializers", "prompt_formats")  # both are the soft prompt's
      if module.startswith("promot_jax.methods.") and not own and name not in shared:
        if path.stem == "__init__":
          continue
        wrong.append(f"{relative(path)}:{line} imports {module}")
  assert not wrong, "\n".join(wrong)


def test_light_layers_stay_free_of_jax_and_tensorflow():
  wrong = [
    f"{relative(path)}:{line} imports {module}"
    for path in python_files()
    for line, module in imports(path)
    if module.split(".")[0] in NEVER.get(layer_of(path), ())
  ]
  assert not wrong, "\n".join(wrong)


def test_tensorflow_and_seqio_are_not_imported_at_the_top_of_other_files():
  wrong = [
    f"{relative(path)}:{line} imports {module}"
    for path in python_files()
    if not READERS.fullmatch(relative(path))
    for line, module in imports(path, top_only=True)
    if module.split(".")[0] in HEAVY_READERS
  ]
  assert not wrong, "\n".join(wrong)


def test_gin_and_print_appear_only_in_the_command_line():
  wrong = []
  for path in python_files():
    if layer_of(path) == "cli":
      continue
    wrong += [
      f"{relative(path)}:{line} imports gin"
      for line, module in imports(path)
      if module.split(".")[0] == "gin"
    ]
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
        wrong.append(f"{relative(path)}:{node.lineno} calls print")
  assert not wrong, "\n".join(wrong)


def test_the_command_line_imports_nothing_heavy_before_the_flags_are_read():
  # Of the methods the package itself, which imports nothing.
  light_parts = {"errors", "signals", "cli", "printable", "methods", "__version__"}
  light = (
    "main",
    "flags",
    "flag_examples",
    "gin_config",
    "gin_files",
    "gin_scan",
    "gin_values",
    "gin_effect",
    "recipe_values",
  )
  for name in (*light, "failures", "config_record"):
    path = REPOSITORY / "promot_jax" / "cli" / f"{name}.py"
    for line, module in imports(path, top_only=True):
      assert module.split(".")[0] not in {"jax", "flax", "optax", "numpy", *HEAVY_READERS}, (
        f"{relative(path)}:{line} imports {module}"
      )
      ours = module.removeprefix("promot_jax.").split(".")[0]
      assert not module.startswith("promot_jax.") or ours in light_parts, (
        f"{relative(path)}:{line} imports {module}"
      )


def test_the_package_of_methods_itself_imports_nothing():
  assert not imports(REPOSITORY / "promot_jax" / "methods" / "__init__.py")


def test_nothing_in_the_package_imports_tests_or_benchmarks():
  for path in python_files():
    for line, module in imports(path):
      assert module.split(".")[0] not in ("tests", "benchmarks"), f"{relative(path)}:{line}"


@pytest.mark.parametrize("word", ["Not" + "ImplementedError", "TO" + "DO", "FIX" + "ME", "X" * 3])
def test_no_unfinished_marks(word):
  files = [*python_files(), *(REPOSITORY / "gin").rglob("*.gin"), *REPOSITORY.glob("launch/*.sh")]
  marked = [relative(path) for path in files if re.search(rf"\b{word}\b", path.read_text())]
  assert not marked


def test_the_recipe_folder_is_no_python_package():
  assert not list((REPOSITORY / "gin").rglob("*.py")), (
    "gin/ with Python files would shadow gin-config"
  )


def test_no_vague_file_names():
  vague = {"utils", "util", "helpers", "helper", "misc", "manager", "handler", "common"}
  assert not [relative(path) for path in python_files() if path.stem in vague]


def test_files_are_one_noun_long():
  long = {relative(path): len(path.read_text().splitlines()) for path in python_files()}
  assert not {name: lines for name, lines in long.items() if lines > 450}
