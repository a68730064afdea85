"""Command-line flags, read before anything heavy is imported so that mistakes show at once.

T5X's habits are kept: `--gin_file` may be repeated (later files win), `--gin.NAME=VALUE` binds a
parameter or macro and strings keep their own quotes (`--gin.DATA_SOURCE="'micro'"`),
`--gin_bindings` takes a whole binding, `--gin_search_paths` is a comma-separated list.
"""

import argparse
import dataclasses
import difflib
from collections.abc import Sequence
from typing import NoReturn

from promot_jax import __version__
from promot_jax.cli import flag_conversion, flag_results, gin_values
from promot_jax.cli.flag_examples import EXAMPLES
from promot_jax.cli.flag_numbers import number_from_0, numbers_from_0, whole_number
from promot_jax.errors import ConfigError

COMMANDS = {
  "train": "run an experiment or a comparison from a gin file (repeat the command to go on)",
  "eval": "score a model directory's checkpoints on tasks",
  "infer": "answer the questions of a file, or one",
  "harness": "score a model on tasks of lm-evaluation-harness",
  "inspect": "show data, a checkpoint, a configuration or a model",
  "report": "make the tables and plots of finished runs",
  "compare": "test whether two evaluated models differ on the same examples",
  "analyze": "draw a figure about runs: forgetting, gradients, trade-offs, distances",
  "combine": "make one checkpoint of the weights of several networks",
  "convert": "translate a checkpoint between Hugging Face, T5X and our own formats",
}
EXIT_CODES = """\
exit codes: 0 done; 2 wrong flag, configuration or task; 65 unusable data; 71 too little memory or
open files; 73 cannot write; 74 damaged checkpoint; 75 stopped and saved (train, eval, infer) or
another process lost, repeat the command; 76 loss diverged; 77 model directory in use; 130 and 143
stopped by SIGINT or SIGTERM at once."""
_PATHS = (
  "model_dir",
  "init",
  "tfds_data_dir",
  "data_dir",
  "gin_file",
  "input",
  "output",
  "method",
  "vocabulary",
  "include_path",
  "source",
  "sources",
  "base",
  "model",
  "name",
  "runs",
  "task_module",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flags:
  """One command line: `command`, the gin part, and the parsed values of everything else."""

  command: str
  gin_files: tuple[str, ...]
  bindings: tuple[str, ...]
  values: argparse.Namespace
  arguments: tuple[str, ...] = ()  # the command line as it was given


def parse(argv: Sequence[str]) -> Flags:
  """Reads `argv` (without the program's name).

  Raises:
    ConfigError: unknown command or flag (with the nearest right one), or a malformed `--gin.` flag.
    SystemExit: after `--help` or `--version`.
  """
  bindings, rest = _take_gin_flags(argv)
  top = _parser()
  if rest and not rest[0].startswith("-") and rest[0] not in COMMANDS:
    raise ConfigError(
      f"'{rest[0]}' is no command.{_nearest(rest[0], COMMANDS)} "
      f"The commands are {', '.join(COMMANDS)}; see promot --help."
    )
  _refuse_empty(rest)
  values, unknown = top.parse_known_args(rest)
  if values.command is None:
    top.print_help()
    raise SystemExit(2)
  if unknown:
    known = _known_flags(top, values.command)
    name = unknown[0].split("=")[0]
    raise ConfigError(
      f"'{name}' is no flag of promot {values.command}.{_nearest(name, known)} "
      f"See promot {values.command} --help."
    )
  _expand(values)
  if getattr(values, "model_dir", None):
    bindings.append(f"MODEL_DIR = {values.model_dir!r}")
  if getattr(values, "init", None):
    bindings.append(f"INITIAL_CHECKPOINT_PATH = {values.init!r}")
  if getattr(values, "seed", None) is not None:
    bindings.append(f"RANDOM_SEED = {values.seed}")
  if getattr(values, "seeds", None):
    bindings.append(f"SEEDS = {values.seeds}")
  return Flags(
    command=values.command,
    gin_files=tuple(getattr(values, "gin_file", None) or ()),
    bindings=tuple(bindings),
    values=values,
    arguments=tuple(argv),
  )


def _refuse_empty(arguments: Sequence[str]) -> None:
  """An empty value is never meant: most likely it is an unset variable of the shell."""
  for position, argument in enumerate(arguments):
    flag, equals, value = argument.partition("=")
    before = arguments[position - 1] if position else ""
    if not argument.strip():
      what = f"{before} has" if before.startswith("--") and "=" not in before else "there is"
      raise ConfigError(
        f"{what} an empty value. Is a variable unset? Give a value, or leave it out."
      )
    if flag.startswith("--") and equals and not value.strip():
      raise ConfigError(
        f"{flag}= is empty. Is a variable unset? Give a value, or leave the flag out."
      )


def _expand(values: argparse.Namespace) -> None:
  """`~` in the flags that take paths: a shell leaves it where it follows a `=`."""
  for name in _PATHS:
    given = getattr(values, name, None)
    if isinstance(given, str):
      setattr(values, name, gin_values.expanded(given))
    elif isinstance(given, list):
      setattr(values, name, [gin_values.expanded(each) for each in given])
  if getattr(values, "gin_search_paths", None):
    parts = values.gin_search_paths.split(",")
    values.gin_search_paths = ",".join(gin_values.expanded(part) for part in parts)


def _take_gin_flags(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """`--gin.A=B`, `--gin.A B` and `--gin_bindings=...` as bindings; and what is left."""
  bindings, rest, queue = [], [], list(argv)
  while queue:
    flag = queue.pop(0)
    if flag.startswith(("--gin.", "-gin.")):
      name, equals, value = flag.lstrip("-")[len("gin.") :].partition("=")
      if not equals:
        if not queue:
          raise ConfigError(f"{flag} has no value. Write {flag}=VALUE.")
        value = queue.pop(0)
      if not value.strip():
        raise ConfigError(f"--gin.{name}= is empty; a gin value is needed, such as None or \"''\".")
      bindings.append(f"{name} = {value}")
    elif flag.startswith("--gin_bindings"):
      _, equals, value = flag.partition("=")
      if not equals and not queue:
        raise ConfigError("--gin_bindings has no value. Write --gin_bindings='NAME = VALUE'.")
      binding = value if equals else queue.pop(0)
      if not binding.strip():
        raise ConfigError("--gin_bindings is empty. Write --gin_bindings='NAME = VALUE'.")
      bindings.append(binding)
    else:
      rest.append(flag)
  return bindings, rest


class _Parser(argparse.ArgumentParser):
  """Reports mistakes as ConfigError, one sentence, instead of its usage."""

  def error(self, message: str) -> NoReturn:
    raise ConfigError(f"{message}. See {self.prog} --help.")


def _parser() -> argparse.ArgumentParser:
  top = _Parser(
    prog="promot",
    description="Adapt pretrained text-to-text models with ProMoT, and measure what they keep.",
    epilog="promot COMMAND --help shows a command's flags and examples.\n" + EXIT_CODES,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  top.add_argument("--version", action="version", version=f"promot_jax {__version__}")
  commands = top.add_subparsers(dest="command", metavar="COMMAND")
  for name, text in COMMANDS.items():
    command = commands.add_parser(
      name,
      help=text,
      description=text[0].upper() + text[1:] + ".",
      epilog=EXAMPLES[name] + EXIT_CODES,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    _FLAGS[name](command)
    command.add_argument("--quiet", action="store_true", help="only results and errors")
    command.add_argument("--verbose", action="store_true", help="details, and tracebacks")
    command.add_argument("--json", action="store_true", help="results as one JSON object")
  return top


def _gin_settings(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    "--gin_file", action="append", metavar="FILE", help="recipe; repeatable, later files win"
  )
  parser.add_argument(
    "--gin.NAME",
    dest="unused_gin",
    metavar="VALUE",
    help="bind a macro or parameter; strings keep their quotes: --gin.DATA_SOURCE=\"'micro'\"",
  )
  parser.add_argument("--gin_bindings", dest="unused_bindings", metavar="'NAME = VALUE'")
  parser.add_argument(
    "--gin_search_paths", default=".", metavar="A,B", help="folders of gin files (default .)"
  )
  parser.add_argument(
    "--gin_allow_imports",
    default="",
    metavar="A,B",
    help="further Python packages that gin files may import; gin files are programs: "
    "allow only what you trust",
  )


def _gin_flags(parser: argparse.ArgumentParser) -> None:
  _gin_settings(parser)
  parser.add_argument(
    "--task_module",
    action="append",
    metavar="MODULE|FILE.py",
    help="where you register tasks with seqio, imported before the recipe names them; repeatable, and "
    "needed again for what was trained on them",
  )
  parser.add_argument(
    "--seqio_additional_cache_dirs",
    metavar="A,B",
    help="folders with cached seqio tasks, for USE_CACHED_TASKS=True",
  )
  parser.add_argument("--model_dir", metavar="DIR", help="where everything is written")
  parser.add_argument(
    "--init",
    metavar="SOURCE",
    help="the same as --gin.INITIAL_CHECKPOINT_PATH=: micro, random, a path, hf:DIR or NAME[@REVISION], "
    "gs://...",
  )
  parser.add_argument("--tfds_data_dir", metavar="DIR", help="where TFDS finds prepared data")
  parser.add_argument("--seed", type=int, help="the same as --gin.RANDOM_SEED=")


def _cluster_flags(parser: argparse.ArgumentParser) -> None:
  """Who takes part in a run over several hosts; TPU slices, SLURM and Open MPI need none of them."""
  parser.add_argument(
    "--coordinator_address", metavar="HOST:PORT", help="several hosts: where process 0 listens"
  )
  parser.add_argument("--process_count", type=whole_number, metavar="N", help="processes in all")
  parser.add_argument(
    "--process_id",
    "--process_index",
    type=number_from_0,
    metavar="0..N-1",
    help="number of this process; 0 speaks and writes",
  )
  parser.add_argument(
    "--peer_wait_seconds",
    type=whole_number,
    default=300,
    metavar="N",
    help="how long the processes wait for each other at the start (default 300)",
  )
  parser.add_argument(
    "--heartbeat_seconds",
    type=whole_number,
    default=100,
    metavar="N",
    help="a process that is silent for so long is lost, and the others end (default 100)",
  )


def _train_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  _cluster_flags(parser)
  parser.add_argument("--dry_run", action="store_true", help="print the plan, write nothing")
  parser.add_argument(
    "--seeds",
    type=numbers_from_0,
    metavar="1,2,3",
    help="all of it once with each of these, in folders seed_1, seed_2 ..., with one report",
  )
  parser.add_argument(
    "--allow_config_change",
    action="store_true",
    help="go on in model_dir although model shape, task, batch or seed changed",
  )


def _checkpoint_flags(
  parser: argparse.ArgumentParser, states: Sequence[str] = ("auto", "on", "off")
) -> None:
  parser.add_argument(
    "--checkpoint",
    default="chosen",
    metavar="chosen|pretrained|STAGE[:STEP]",
    help="which weights of the model directory (default: the last stage's chosen step)",
  )
  parser.add_argument(
    "--method",
    metavar="FILE",
    help="the pretrained backbone with the method of a method file, or an adapter of PEFT",
  )
  parser.add_argument(
    "--attach",
    "--prompt",
    choices=states,
    default="auto",
    help="whether the trained method is attached: prompt, prefix, LoRA ... (default: for tuned tasks only;"
    " --prompt is the same)",
  )
  parser.add_argument(
    "--attach_task",
    "--prompt_task",
    metavar="NAME",
    help="of which task, where the method has a row for each (--prompt_task is the same)",
  )
  parser.add_argument("--limit", type=whole_number, metavar="N", help="only the first N examples")
  parser.add_argument("--output", metavar="PATH", help="where to write")


def _eval_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  _cluster_flags(parser)
  _checkpoint_flags(parser, ("auto", "on", "off", "both"))
  parser.add_argument("--tasks", metavar="A,B", help="task names (default: the recipe's plan)")
  parser.add_argument("--shots", metavar="0,1,4", help="demonstrations (default: the recipe's)")
  parser.add_argument("--split", metavar="NAME", help="split (default: each task's own)")
  parser.add_argument(
    "--answers",
    choices=["auto", "ranked", "generated"],
    help="how answers come about: as each task has it, the most probable of its labels or choices, or written"
    " by the model (default: the recipe's, auto)",
  )


def _infer_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  _cluster_flags(parser)
  _checkpoint_flags(parser)
  asked = parser.add_mutually_exclusive_group(required=True)
  asked.add_argument(
    "--input",
    metavar="FILE",
    help="JSON lines, or by its name's end TSV, CSV or Parquet; - is JSON lines of standard input",
  )
  asked.add_argument("--text", help="one question, in place of a file of them")
  asked.add_argument(
    "--cell",
    action="append",
    metavar="COLUMN=TEXT",
    help="one question to a model tuned on a table of your own, by its columns; repeatable",
  )
  parser.add_argument(
    "--field",
    help="the field with the text (default inputs; for a model tuned on a table of your own, the columns"
    " of its template)",
  )
  parser.add_argument(
    "--probabilities", action="store_true", help="add the probability of each label of the task"
  )
  parser.add_argument(
    "--prediction_field", default="prediction", metavar="NAME", help="the answer's field"
  )
  parser.add_argument("--score_field", default="score", metavar="NAME", help="its score's field")
  parser.add_argument(
    "--stop", choices=["auto", "line", "none"], default="auto", help="what ends answers, beside eos"
  )
  parser.add_argument(
    "--too_long",
    choices=["refuse", "cut", "skip"],
    default="refuse",
    help="inputs with more tokens than the plan allows: refuse all before the first answer, cut their"
    " ends off, or give null for an answer (default refuse)",
  )


def _harness_flags(parser: argparse.ArgumentParser) -> None:
  _gin_flags(parser)
  _checkpoint_flags(parser)
  parser.add_argument("--tasks", required=True, metavar="A,B", help="names of lm_eval's tasks")
  parser.add_argument(
    "--include_path",
    metavar="DIR",
    help="a folder with task files of your own; they may run Python: name only what you trust",
  )
  parser.add_argument(
    "--shots", type=number_from_0, metavar="N", help="demonstrations (default: each task's)"
  )
  parser.set_defaults(coordinator_address=None, process_count=1, process_id=None)


def _inspect_flags(parser: argparse.ArgumentParser) -> None:
  parser.add_argument("what", choices=["data", "checkpoint", "config", "model"])
  parser.add_argument("name", nargs="?", help="task name, checkpoint folder or gin file")
  _gin_flags(parser)
  parser.add_argument("--n", type=whole_number, default=3, help="how many examples (default 3)")
  parser.add_argument(
    "--split", help="of a task (default validation), or a recipe's (default train)"
  )
  parser.add_argument("--source", choices=["tfds", "micro", "files"], default="micro")
  parser.add_argument("--data_dir", metavar="DIR", help="original files, of --source=files")
  parser.add_argument(
    "--vocabulary", default="t5", help="t5, mt5, hf:FOLDER or sentencepiece:FILE (default t5)"
  )
  parser.add_argument("--verify", action="store_true", help="check every file's checksum")


_FLAGS = {
  "train": _train_flags,
  "eval": _eval_flags,
  "infer": _infer_flags,
  "harness": _harness_flags,
  "inspect": _inspect_flags,
  "report": flag_results.report,
  "compare": flag_results.compare,
  "analyze": lambda parser: flag_results.analyze(parser, gin_flags=_gin_flags),
  "combine": lambda parser: flag_conversion.combine(parser, gin_settings=_gin_settings),
  "convert": flag_conversion.convert,
}


def _known_flags(top: argparse.ArgumentParser, command: str) -> list[str]:
  for action in top._actions:
    if isinstance(action, argparse._SubParsersAction):
      return [name for a in action.choices[command]._actions for name in a.option_strings]
  return []


def _nearest(word: str, words) -> str:
  found = difflib.get_close_matches(word, list(words), 1, cutoff=0.5)
  return f" Did you mean '{found[0]}'?" if found else ""
