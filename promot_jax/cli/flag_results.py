"""Flags of the commands that read finished runs."""

import argparse
from collections.abc import Callable

from promot_jax.cli.flag_numbers import number_from_0, whole_number


def report(parser: argparse.ArgumentParser) -> None:
  """Those of `promot report`."""
  parser.add_argument("runs", nargs="+", metavar="DIR", help="model directories")
  parser.add_argument("--output", metavar="DIR", help="where to write (default: the first DIR)")


def compare(parser: argparse.ArgumentParser) -> None:
  """Those of `promot compare`."""
  parser.add_argument(
    "runs",
    nargs=2,
    metavar="DIR",
    help="two model directories, or folders that promot eval wrote; the same one twice with --checkpoints",
  )
  parser.add_argument(
    "--checkpoints",
    metavar="A,B",
    help="whose results, of the first and of the second, as their folders below DIR/evaluation are called"
    " (default: the reported ones)",
  )
  parser.add_argument("--tasks", metavar="A,B", help="only these (default: all that both have)")
  parser.add_argument(
    "--resamples",
    type=whole_number,
    default=10_000,
    metavar="N",
    help="of the interval, and exchanges of the test where not all can be tried (default 10000)",
  )
  parser.add_argument(
    "--seed", type=number_from_0, default=0, metavar="N", help="of both (default 0)"
  )


def analyze(
  parser: argparse.ArgumentParser, *, gin_flags: Callable[[argparse.ArgumentParser], None]
) -> None:
  """Those of `promot analyze`; `gin_flags` adds those of recipes."""
  parser.add_argument("name", metavar="NAME", help="of the analysis: a file of gin/analyses")
  parser.add_argument(
    "runs",
    nargs="*",
    metavar="DIR",
    help="model directories, or method files (prompt_distances); none of distillation_theory;"
    " --model_dir=DIR is the same",
  )
  gin_flags(parser)
  parser.add_argument(
    "--output", metavar="DIR", help="where to write (default: analyses in the first DIR)"
  )
  # What reading a model directory asks for.
  parser.set_defaults(coordinator_address=None, process_count=1, process_id=None)
