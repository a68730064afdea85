"""What a gin file and a foreign model directory can reach: values, and nothing that acts."""

import ast
import dataclasses
import importlib
import inspect
import json
import pathlib
import re
import subprocess
import textwrap

import pytest

from promot_jax.cli import config_record, directory, flags, gin_config, gin_files, recipe_values
from promot_jax.cli.main import main
from promot_jax.data import promptsource
from promot_jax.errors import ConfigError, DataError

HEAD = "from __gin__ import dynamic_registration\n"
RECIPE = HEAD + "include 'promot_rte_micro.gin'\n"
MAIN = "main.main.argv = ['train', '--gin_allow_imports=evil', '--gin_file={folder}/evil.gin']\n"

# Each a way to something that is no value; what must not happen is in the test below.
ATTACKS = {
  "the command line": "from promot_jax.cli import main\nEXPERIMENT = @main.main()\n" + MAIN,
  "the command line under another name": (
    "import promot_jax.cli.main as experiment\nEXPERIMENT = @experiment.main()\n"
  ),
  "the command line's package": "from promot_jax import cli\nEXPERIMENT = @cli.main.main()\n",
  "the whole package": "import promot_jax\nEXPERIMENT = @promot_jax.cli.main.main()\n",
  "a listed module's name for another": (
    "from promot_jax.checkpoints import store as stages\nEXPERIMENT = @stages.Store()\n"
  ),
  "a folder's deletion": (
    "from promot_jax.checkpoints import store\nEXPERIMENT = @store.shutil.rmtree()\n"
    "store.shutil.rmtree.path = '{folder}/kept'\n"
  ),
  "an attribute of a listed module": (
    "from promot_jax.methods import prompt\nEXPERIMENT = @prompt.paths.re.compile()\n"
  ),
  "a module that a listed module imports": (
    "from promot_jax.experiments import experiment\nEXPERIMENT = @experiment.re.compile()\n"
    "experiment.re.compile.pattern = 'a'\n"
  ),
  "a name that a listed module imports": (
    "from promot_jax.experiments import pretraining\nEXPERIMENT = @pretraining.write_text()\n"
    "pretraining.write_text.path = '{folder}/ran'\npretraining.write_text.text = 'x'\n"
  ),
  "a function of a listed module that acts": (
    "from promot_jax.experiments import pretraining\nEXPERIMENT = @pretraining.pretrain()\n"
  ),
  "a method of a listed class": (
    "from promot_jax.experiments import experiment\n"
    "EXPERIMENT = @experiment.Experiment.seqio_name()\n"
  ),
  "a binding on a method": (
    "from promot_jax.experiments import experiment\nexperiment.Experiment.seqio_name.task = 'x'\n"
  ),
  "a class method of a type": (
    "from promot_jax.training import stages\nEXPERIMENT = @stages.Stage.__class__()\n"
  ),
  "a private name": "from promot_jax.training import stages\nEXPERIMENT = @stages._is_count()\n",
  "the loader of task modules": (
    "from promot_jax.data import examples\nEXPERIMENT = @examples.load_examples()\n"
    "examples.load_examples.modules = ('evil',)\n"
  ),
  "method files": ("from promot_jax.methods import files\nEXPERIMENT = @files.build()\n"),
  "tasks": "from tasks import registration\nEXPERIMENT = @registration.register()\n",
  "optax's inside": ("import optax\nEXPERIMENT = @optax.schedules.importlib.import_module()\n"),
  "a submodule of optax": "import optax.contrib\nEXPERIMENT = @optax.contrib.prodigy()\n",
  "optax's functions with functions": "import optax\nEXPERIMENT = @optax.apply_updates()\n",
  "the standard library": "import os\nEXPERIMENT = @os.system()\nos.system.command = 'x'\n",
  "gin itself": "EXPERIMENT = @gin.config.parse_config()\n",
  "gin's singleton": "EXPERIMENT = @a/gin.singleton()\na/gin.singleton.constructor = @gin.macro\n",
  "gin imported": "import gin.config as c\nEXPERIMENT = @c.parse_config()\n",
  "an import named gin": ("import promot_jax.training.stages as gin\nEXPERIMENT = @gin.Stage()\n"),
  "gin's constants": "EXPERIMENT = %os.system\n",
  "another gin feature": "from __gin__ import everything\n",
  "inside a dictionary": (
    "from promot_jax.cli import main\nfrom promot_jax.training import stages\n"
    "stages.Stage.trainable = {{'a': [(@main.main(),)]}}\nEXPERIMENT = @stages.Stage()\n"
  ),
  "as a dictionary's key": (
    "from promot_jax.checkpoints import store\nA = {{@store.Store(): 1}}\nEXPERIMENT = %A\n"
  ),
  "in a scope": "from promot_jax.cli import main\nEXPERIMENT = @a/b/main.main()\n",
  "through a macro": "from promot_jax.cli import main\nA = @main.main()\nEXPERIMENT = %A\n",
  "handed over, to be called by the library": (
    "from promot_jax.training import stages\nfrom promot_jax.checkpoints import step_files\n"
    "stages.Stage.learning_rate = @step_files.delete\nEXPERIMENT = @stages.Stage()\n"
  ),
  "in a block": (
    "from promot_jax.cli import main\nmain.main:\n  argv = ['train']\nEXPERIMENT = @main.main()\n"
  ),
  "an include elsewhere": "include '{folder}/evil_include.gin'\n",
  "an include upwards": "include '{folder}/below/../evil_include.gin'\n",
  "letters that look alike": (
    "from promot_jax.training import st\u0430ges\nEXPERIMENT = @st\u0430ges.Stage()\n"
  ),
  "letters that Python takes for others": (
    "from promot_jax.training import \uff53tages\nEXPERIMENT = @\uff53tages.Stage()\n"
  ),
  "a NUL byte": "EXPERIMENT = 3\0\nimport os\n",
  "a form feed and a carriage return": "A = 1\r\x0cimport os\nEXPERIMENT = @os.getcwd()\n",
  "itself": (
    "from promot_jax.experiments import comparison\nEXPERIMENT = @comparison.Comparison()\n"
    "comparison.Comparison.experiments = [@comparison.Comparison()]\n"
  ),
  "macros in a circle": "A = %B\nB = %A\nEXPERIMENT = %A\n",
  "macros that multiply": (
    "A0 = [1, 1]\n"
    + "".join(f"A{i + 1} = [%A{i}, %A{i}]\n" for i in range(60))
    + "EXPERIMENT = %A60\n"
  ),
  "deep brackets": "EXPERIMENT = " + "[" * 60 + "]" * 60 + "\n",
  "very deep brackets": "EXPERIMENT = " + "[" * 5000 + "]" * 5000 + "\n",
  "a long number": "EXPERIMENT = " + "9" * 5000 + "\n",
}


@pytest.fixture(autouse=True)
def bait(tmp_path, monkeypatch):
  """A module whose import leaves a trace, a folder that must stay, and a way to both."""
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "xla"))
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
  (tmp_path / "evil.gin").write_text(HEAD + "import evil\n")
  (tmp_path / "evil_include.gin").write_text(HEAD + "import evil\n")
  (tmp_path / "kept").mkdir()
  (tmp_path / "below").mkdir()
  yield
  assert not (tmp_path / "ran").exists(), "foreign code was run"
  assert (tmp_path / "kept").is_dir(), "a folder was deleted"


def one_sentence(capsys) -> str:
  printed = capsys.readouterr().err
  assert printed.startswith("ERROR") and "Traceback" not in printed and "bug" not in printed
  return printed


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("command", ["train", "inspect"])
def test_a_gin_file_cannot_reach(name, command, tmp_path, capsys):
  file = tmp_path / "recipe.gin"
  file.write_bytes((HEAD + ATTACKS[name].format(folder=tmp_path)).encode())
  given = ["train", "--dry_run"] if command == "train" else ["inspect", "model"]
  assert main([*given, f"--gin_file={file}"]) == 2
  one_sentence(capsys)


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("kept", ["config.gin", "config.flat.txt"])
def test_a_model_directory_cannot_reach(name, kept, tmp_path, capsys):
  run = tmp_path / "run"
  (run / "stages").mkdir(parents=True)
  start = HEAD if kept == "config.gin" else "# promot_jax configuration, version 2: \n"
  (run / kept).write_bytes((start + ATTACKS[name].format(folder=tmp_path)).encode())
  (run / "config.gin").touch()
  assert main(["convert", str(run), str(tmp_path / "out"), "--to=hf"]) == 2
  one_sentence(capsys)
  assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [n for n in ATTACKS if "include" not in n])
def test_the_bindings_of_a_command_line_cannot_reach(name, tmp_path, capsys):
  text = ATTACKS[name].format(folder=tmp_path)
  command = ["train", "--gin_file=promot_rte_micro.gin", "--dry_run", f"--gin_bindings={text}"]
  assert main(command) == 2
  one_sentence(capsys)


@pytest.mark.parametrize("package", ["promot_jax", "tasks", "optax", "gin", "promot_jax.cli"])
def test_what_has_a_list_cannot_be_allowed_as_a_package(package, tmp_path, capsys):
  command = ["train", "--gin_file=promot_rte_micro.gin", f"--gin_allow_imports={package}"]
  assert main(command) == 2
  assert "lists for them" in one_sentence(capsys)


def test_a_users_package_cannot_lend_our_command_line(tmp_path):
  (tmp_path / "lender.py").write_text("from promot_jax.cli.main import main\n")
  text = HEAD + "import lender\nEXPERIMENT = @lender.main()\n"
  (tmp_path / "recipe.gin").write_text(text)
  scanned = gin_config.read(["recipe.gin"], [], allow_imports="lender")
  with pytest.raises(ConfigError, match="no class or function defined there"):
    gin_config.build(scanned)


OWN = "def config(width=3):\n  return width\n\n\nopen('loaded', 'w')\n"


def test_a_users_package_is_used_where_it_is_allowed_and_only_there(tmp_path):
  (tmp_path / "own_models.py").write_text(OWN)
  text = (
    HEAD + "import own_models\nown_models.config.width = 5\nEXPERIMENT = @own_models.config()\n"
  )
  (tmp_path / "recipe.gin").write_text(text)
  with pytest.raises(ConfigError, match="--gin_allow_imports=own_models"):
    gin_config.read(["recipe.gin"], [])
  scanned = gin_config.read(["recipe.gin"], [], allow_imports="own_models")
  assert not (tmp_path / "loaded").exists(), "scanning imports nothing, also where it is allowed"
  assert gin_config.build(scanned) == 5
  run = tmp_path / "run"
  config_record.write(run, scanned, command=["train"], changed=[])
  with pytest.raises(ConfigError, match="repeat --gin_allow_imports=own_models"):
    config_record.read(run, [])
  assert gin_config.build(config_record.read(run, [], allow_imports="own_models")) == 5


# A file of templates is somebody else's, too.

TEMPLATE = (
  "templates:\n  a: !Template\n    name: t\n    jinja: {jinja}\n    answer_choices: {choices}\n"
)
JINJA_ATTACKS = {
  "the inside of a text": "{{ premise.__class__.__mro__[1].__subclasses__() }} ||| x",
  "the inside by an index": "{{ premise['__class__'] }} ||| x",
  "the inside by a filter": "{{ premise | attr('__class__') }} ||| x",
  "the inside by a map": "{{ [premise] | map(attribute='__class__') | join }} ||| x",
  "the inside by a format": "{{ '{0.__class__}'.format(premise) }} ||| x",
  "a function's globals": "{{ range.__globals__ }}{{ premise }} ||| x",
  "a method's owner": "{{ premise.join.__self__ }} ||| x",
  "a generator's frame": "{{ ([premise] | map('lower')).gi_frame }} ||| x",
  "Jinja's own objects": "{{ self._TemplateReference__context }}{{ premise }} ||| x",
  "Jinja's globals": "{{ cycler.__init__.__globals__.os.system('touch ran') }}{{ premise }} ||| x",
  "the loop's inside": "{% for a in [premise] %}{{ loop.__class__ }}{% endfor %} ||| x",
  "a namespace's inside": "{{ namespace(a=premise)._Namespace__attrs }} ||| x",
  "a file": "{% include 'kept' %}{{ premise }} ||| x",
  "another template": "{% extends '/etc/passwd' %}{{ premise }} ||| x",
  "an import": "{% import 'evil.py' as evil %}{{ premise }} ||| x",
  "a macro": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}{{ premise }} ||| x",
  "a loop that calls itself": "{% for a in [premise] recursive %}{{ loop([a]) }}{% endfor %} ||| x",
  "without end": "{% for i in range(99999) %}{% for j in range(99999) %}{{ premise }}{% endfor %}{% endfor %} ||| x",
  "without room": "{{ premise ~ 'a' * 9999999999 }} ||| x",
}
YAML_ATTACKS = {
  "a call": "templates: !!python/object/apply:os.system ['touch ran']\n",
  "an object": "templates: !!python/object/new:evil.Evil []\n",
  "a name": "templates: {a: !!python/name:os.system }\n",
  "a module": "templates: !!python/module:evil\n",
  "a tag of a class": "templates: !<tag:yaml.org,2002:python/object:evil.Evil> {}\n",
  "laughter": "a: &a [x, x]\n"
  + "".join(f"{c}: &{c} [*{b}, *{b}, *{b}, *{b}]\n" for b, c in zip("abcdefgh", "bcdefghi")),
  "merged laughter": "a: &a {x: 1}\ntemplates:\n  <<: [*a, *a]\n",
  "depth": "templates: " + "[" * 20_000 + "\n",
  "size": "templates: {a: " + "x" * 2**20 + "}\n",
}


def inspected(content: str, folder: pathlib.Path) -> int:
  (folder / "t.yaml").write_text(content)
  bound = {"TEMPLATES_FILE": "t.yaml", "TEMPLATES_TASK": "rte"}
  given = [f"--gin.{name}={value!r}" for name, value in bound.items()]
  return main(["inspect", "data", "--gin_file=promot_templates_micro.gin", *given, "--n=1"])


@pytest.mark.parametrize("name", JINJA_ATTACKS)
def test_a_template_cannot_reach(name, tmp_path):
  for field in ("jinja", "choices"):
    texts = {"jinja": "{{ premise }} ||| x", "choices": "x ||| y", field: JINJA_ATTACKS[name]}
    file = tmp_path / "t.yaml"
    file.write_text(TEMPLATE.format(**{key: json.dumps(text) for key, text in texts.items()}))
    with pytest.raises(DataError, match=r"t\.yaml, template 't'"):
      promptsource.read(str(file))[0].render({"premise": "Tom sold it."})


@pytest.mark.parametrize("name", YAML_ATTACKS)
def test_a_file_of_templates_cannot_reach(name, tmp_path, capsys):
  assert inspected(YAML_ATTACKS[name], tmp_path) == 65
  assert "t.yaml" in one_sentence(capsys)


def test_a_record_that_a_template_does_not_get_through_ends_the_command(tmp_path, capsys):
  texts = {"jinja": JINJA_ATTACKS["without end"], "choices": "x"}
  content = TEMPLATE.format(**{key: json.dumps(text) for key, text in texts.items()})
  assert inspected(content, tmp_path) == 65
  assert "template 't': it makes too much text" in one_sentence(capsys)


# What is reachable, all of it.

REACHABLE = sorted(
  {
    recipe_values.resolve(module, name, place="").full
    for module in recipe_values.modules().values()
    if module != "optax"
    for name in recipe_values.offered(module)
  }
)
# Functions, each read by a person: it returns a value, and of files only reads what it is named.
FACTORIES = {
  "promot_jax.checkpoints.huggingface.importer.config",
  "promot_jax.data.low_data.splits",
  "promot_jax.data.mixtures.equal",
  "promot_jax.data.mixtures.proportional",
  "promot_jax.data.mixtures.temperature",
  "promot_jax.data.mixtures.weighted",
  "promot_jax.experiments.seeds.further",
  "promot_jax.micro.wordings.folder",
  "promot_jax.networks.micro_model.config",
  "promot_jax.networks.micro_model.decoder_config",
  "promot_jax.networks.texts.token_ids",
  "promot_jax.training.adafactor.adafactor",
  "promot_jax.training.optimizers.adam",
  "promot_jax.training.optimizers.adamw",
  "promot_jax.training.optimizers.grouped",
  "promot_jax.training.optimizers.prompt_adafactor",
  "promot_jax.training.optimizers.sam",
  "promot_jax.training.optimizers.sgd",
  "promot_jax.training.schedules.constant",
  "promot_jax.training.schedules.create_learning_rate_scheduler",
  "promot_jax.training.schedules.linear",
  "promot_jax.training.subspaces.orthogonal",
}
ACTING = {
  "eval", "exec", "compile", "__import__", "import_module", "open", "system", "Popen", "run",
  "check_call", "check_output", "rmtree", "unlink", "remove", "rename", "replace", "write_text",
  "write_bytes", "mkdir", "loads", "getattr", "setattr", "main",
}  # fmt: skip
NAMES_ONLY = {"replace", "getattr", "setattr"}  # dataclasses.replace, object.__setattr__


@pytest.mark.parametrize("full", REACHABLE)
def test_what_gin_files_can_name_is_a_data_class_or_a_function_that_builds_a_value(full):
  value = recipe_values.require_identity(full)
  if inspect.isclass(value):
    assert dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen
    hook = getattr(value, "__post_init__", None)
    source = inspect.getsource(hook) if hook else ""
  else:
    sizes = full.rpartition(".")[0].endswith("_sizes") or ".sizes." in full
    assert sizes or full in FACTORIES, f"{full} is a function that nobody looked at"
    source = inspect.getsource(value)
  calls = {
    node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    for node in ast.walk(ast.parse(textwrap.dedent(source)))
    if isinstance(node, ast.Call)
  }
  assert not (calls & ACTING) - NAMES_ONLY


@pytest.mark.parametrize("full", REACHABLE)
def test_no_parameter_of_them_is_the_name_of_a_module(full):
  module, _, name = full.rpartition(".")
  assert not {"modules", "module", "argv", "command"} & set(
    recipe_values.parameters(module, name) or ()
  )


def test_the_functions_of_optax_are_its_own():
  for name in recipe_values._OPTAX:
    assert recipe_values.require_identity(f"optax.{name}").__module__.startswith("optax.")


def test_the_last_part_of_a_listed_modules_name_tells_it():
  listed = pathlib.Path(recipe_values.__file__).parents[1].rglob("*.py")
  with_list = [path for path in listed if "\nRECIPE_VALUES = " in path.read_text()]
  names = [path.parent.name if path.stem == "__init__" else path.stem for path in with_list]
  assert len(names) == len(set(names)) == len(recipe_values.modules()) - 1  # optax


@pytest.mark.parametrize("name", ["sizes", "bart_sizes", "decoder_sizes"])
def test_every_published_size_is_listed(name):
  module = importlib.import_module(f"promot_jax.models.{name}")
  functions = inspect.getmembers(module, inspect.isfunction)
  own = {key for key, value in functions if value.__module__ == module.__name__}
  assert {key for key in own if not key.startswith("_")} == set(module.RECIPE_VALUES)


def test_the_command_line_lists_nothing():
  for path in pathlib.Path(recipe_values.__file__).parent.glob("*.py"):
    assert not recipe_values.offered(f"promot_jax.cli.{path.stem}")


def test_what_gin_is_given_names_listed_objects_only():
  scanned = gin_config.read(["promot_rte_micro.gin"], [])
  for line in gin_config.program(scanned).splitlines()[1:]:
    if line.startswith("from "):
      _, package, _, name = line.split()
      assert recipe_values.offered(f"{package}.{name}")
  assert "include" not in gin_config.program(scanned)


def test_an_object_that_was_exchanged_after_the_scan_is_found(monkeypatch):
  stages = importlib.import_module("promot_jax.training.stages")
  monkeypatch.setattr(stages, "Stage", subprocess.Popen)
  with pytest.raises(ConfigError, match="no class or function defined there"):
    recipe_values.require_identity("promot_jax.training.stages.Stage")


# Model directories.


def kept(tmp_path: pathlib.Path, *bindings: str, recipe: str = "promot_rte_micro.gin"):
  """A model directory as a start leaves it."""
  run = tmp_path / "run"
  scanned = gin_config.read([recipe], [f"MODEL_DIR = {str(run)!r}", *bindings])
  built = gin_config.build(scanned)
  config_record.write(run, scanned, command=["train"], changed=[])
  return run, built, scanned


RECIPES = [
  "promot_rte_micro.gin",
  "comparison_methods_rte_micro.gin",
  "groups_rte_micro.gin",
  "prefix_tune_words_rte_micro.gin",
  "pretrain_micro.gin",
  "quickstart.gin",
]


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("version", [1, 2])
def test_the_configuration_of_a_model_directory_is_that_of_its_recipe(tmp_path, recipe, version):
  run, built, scanned = kept(tmp_path, "RANDOM_SEED = 5", recipe=recipe)
  if version == 1:  # earlier versions kept no macros in the flat file, and had gin's own text
    (run / config_record.FLAT).write_text(config_record.flat_text(scanned))
  else:
    (run / config_record.GIN).write_text(
      "import os\nEXPERIMENT = @os.getcwd()\n"
    )  # is not looked at
  again = gin_config.build(config_record.read(run, []))
  assert described(again) == described(built)


def described(value) -> str:
  return re.sub(r"0x[0-9a-f]+", "", repr(value))


def test_the_users_own_bindings_count_over_a_model_directorys(tmp_path):
  run, _, _ = kept(tmp_path)
  bindings = ["RANDOM_SEED = 7", "experiment.EvaluationPlan.limit = 4"]
  experiment = gin_config.build(config_record.read(run, bindings))
  assert (experiment.seed, experiment.evaluation.limit) == (7, 4)
  with pytest.raises(ConfigError, match=r"Did you mean 'RANDOM_SEED'\?"):
    config_record.read(run, ["RANDOM_SED = 7"])


def test_a_model_directory_is_written_where_it_lies_and_not_where_its_file_says(tmp_path):
  run, _, _ = kept(tmp_path, f"experiment.Experiment.model_dir = {str(tmp_path / 'elsewhere')!r}")
  command = flags.parse(["eval", f"--model_dir={run}", "--quiet"])
  (opened,) = directory.opened(command)
  assert opened.folder == run


def test_a_later_versions_configuration_is_refused_with_what_to_do(tmp_path, capsys):
  run, _, _ = kept(tmp_path)
  file = run / config_record.FLAT
  file.write_text(file.read_text().replace("version 2", "version 3", 1))
  assert main(["eval", f"--model_dir={run}"]) == 2
  assert "reads version 2" in one_sentence(capsys)


def test_a_configuration_that_is_a_link_to_another_file_is_only_read(tmp_path, capsys):
  run, secret = tmp_path / "run", tmp_path / "secret"
  run.mkdir()
  secret.write_text("root:x:0:0\n")
  (run / config_record.FLAT).symlink_to(secret)
  (run / config_record.GIN).symlink_to(secret)
  assert main(["eval", f"--model_dir={run}"]) == 2
  one_sentence(capsys)
  assert secret.read_text() == "root:x:0:0\n"


def test_a_link_in_somebody_elses_directory_changes_nothing_elsewhere(tmp_path, capsys):
  run, _, _ = kept(tmp_path)
  outside = tmp_path / "outside"
  outside.mkdir()
  (run / "evaluation").symlink_to(outside)
  assert main(["eval", f"--model_dir={run}", "--checkpoint=pretrained", "--quiet"]) == 2
  assert "evaluation is a link to" in one_sentence(capsys)
  (run / "evaluation").unlink()
  precious = tmp_path / "precious"
  precious.write_text("precious")
  (run / ".lease").symlink_to(precious)
  assert main(["eval", f"--model_dir={run}", "--checkpoint=pretrained", "--quiet"]) == 73
  one_sentence(capsys)
  assert not list(outside.iterdir()) and precious.read_text() == "precious"


def test_values_of_every_kind_are_read_back_as_they_were(tmp_path):
  text = (
    "A = {'a': [1, -2.5, 1e999, (True,), (), None, b'x'], 3: 'quote\\'\"\\n\\u2028 # =', -1e-9: ''}\n"
    "EXPERIMENT = %A\n"
  )
  (tmp_path / "recipe.gin").write_text(HEAD + text)
  scanned = gin_config.read(["recipe.gin"], [])
  expected = {
    "a": [1, -2.5, float("inf"), (True,), (), None, b"x"],
    3: "quote'\"\n\u2028 # =",
    -1e-9: "",
  }
  assert gin_config.build(scanned) == expected
  config_record.write(tmp_path / "run", scanned, command=[], changed=[])
  assert gin_config.build(config_record.read(tmp_path / "run", [])) == expected


def test_a_scan_reads_what_gin_reads():
  """gin's own parser, on the files themselves, binds the same values to the same objects."""
  import gin
  from gin import config as gin_internals

  folder = gin_files.recipe_folders()[0]
  for name in ("comparison_methods_rte_micro.gin", "groups_rte_micro.gin", "pretrain_micro.gin"):
    gin.clear_config()
    gin_internals._FILE_READERS[:] = [(open, lambda path: pathlib.Path(path).is_file())]
    gin_internals._LOCATION_PREFIXES[:] = ["", folder]
    for path in gin_files.find(name, [folder]):
      gin.parse_config_file(path)
    gin.parse_config("MODEL_DIR = 'x'")
    by_gin = {
      (scope, gin_internals._REGISTRY[selector].wrapped, parameter)
      for (scope, selector), values in gin_internals._CONFIG.items()
      for parameter in values
    }
    scanned = gin_config.read([name], ["MODEL_DIR = 'x'"])
    ours = {
      (b.scope, recipe_values.require_identity(b.selector), b.parameter)
      for b in scanned.bindings.values()
    } | {(b.scope, gin_internals.macro, "value") for b in scanned.macros.values()}
    assert ours == by_gin
