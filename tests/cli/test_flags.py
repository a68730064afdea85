import pathlib
import re
import subprocess
import sys
import time

import pytest

from promot_jax.cli import flags
from promot_jax.cli.main import main
from promot_jax.errors import ConfigError
from promot_jax.micro import knowledge


def test_gin_flags_become_bindings_and_keep_their_quotes():
  parsed = flags.parse(
    [
      "train",
      "--gin_file=a.gin",
      "--gin_file",
      "b.gin",
      "--gin.MODEL_DIR='/tmp/x y'",
      "--gin.BATCH_SIZE",
      "32",
      "--gin_bindings=TRAIN_STEPS = 7",
      "--seed=3",
    ]
  )
  assert parsed.gin_files == ("a.gin", "b.gin")
  assert parsed.bindings == (
    "MODEL_DIR = '/tmp/x y'",
    "BATCH_SIZE = 32",
    "TRAIN_STEPS = 7",
    "RANDOM_SEED = 3",
  )


def test_model_dir_flag_is_a_binding_too():
  assert "MODEL_DIR = 'a/b'" in flags.parse(["train", "--model_dir=a/b"]).bindings


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["trian"], "Did you mean 'train'"),
    (["train", "--gin_fil=x"], "Did you mean '--gin_file'"),
    (["eval", "--shot=1"], "Did you mean '--shots'"),
    (["train", "--gin.A"], "has no value"),
  ],
)
def test_a_wrong_flag_is_answered_with_the_nearest_right_one(arguments, words):
  with pytest.raises(ConfigError, match=words):
    flags.parse(arguments)


def test_a_wrong_command_line_ends_with_code_2(capsys):
  assert main(["trian"]) == 2
  assert "ERROR" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["infer", "--help"]])
def test_help_loads_neither_jax_nor_tensorflow(arguments):
  program = (
    "import sys\n"
    "from promot_jax.cli.main import main\n"
    "try:\n"
    f"  main({arguments!r})\n"
    "except SystemExit as end:\n"
    "  assert end.code == 0\n"
    "loaded = {'jax', 'tensorflow', 'seqio', 'numpy', 'flax'} & set(sys.modules)\n"
    "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
  )
  start = time.process_time()
  done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stderr
  assert "exit codes" in done.stdout
  assert time.process_time() - start < 1.0


def test_the_sample_question_of_the_help_is_one_that_the_micro_world_answers():
  (question,) = re.findall(r'"inputs": "Q: (.*?) A:"', flags.EXAMPLES["infer"])
  answers = {
    wording.format(s=fact.subject): fact.value
    for fact in knowledge.facts(0)
    for wording in knowledge.RELATIONS[fact.relation].trivia
  }
  assert answers[question] == "football"
  readme = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
  assert f'"Q: {question} A:", "prediction": "{answers[question]}"' in readme
