"""The COCO caption scorers by pycocoevalcap: their tokenizer, ROUGE-L and CIDEr (E2E uses them).

The tokenizer is Stanford's PTBTokenizer, in lower case and without punctuation; it comes with the
package and runs on Java.  Text that is tokenized already, or a machine without Java, takes
`tokenizer="none"`: words between blanks, as nlg-eval does.
"""

import dataclasses
import subprocess
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from promot_jax import errors
from promot_jax.metrics import extras, metric

Tokenizer = Literal["ptb", "none"]

INSTALL = "'promot_jax[metrics]'"
_JAVA = "install a Java runtime (Debian: apt-get install default-jre-headless)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CocoRougeL(metric.Mean):
  """ROUGE-L of the COCO scorer, 0 to 100: F with beta 1.2 of the best precision and the best recall.

  Precision and recall may come from two references, unlike rouge-score's.  A target is a string or a
  sequence of references.  Returns `{"coco_rougeL": score}`, the mean over the examples.
  """

  scores: ClassVar[tuple[str, ...]] = ("coco_rougeL",)

  tokenizer: Tokenizer = "ptb"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    rouge = extras.library("pycocoevalcap.rouge.rouge", of="coco_rougeL", install=INSTALL).Rouge()
    references, outputs = tokenized(targets, predictions, self.tokenizer, of="coco_rougeL")
    scores = [rouge.calc_score([text], refs) for text, refs in zip(outputs, references)]
    return metric.mean_statistics(100.0 * np.asarray([scores], np.float64))

  @property
  def signature(self) -> str:
    return f"pycocoevalcap, tokenizer {self.tokenizer}, beta 1.2"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cider(metric.Mean):
  """CIDEr-D of the COCO scorer, 0 to 10: agreement of n-grams weighed by how few examples have them.

  Document frequencies come from the references of all examples given, so one example's score depends
  on the others.  A target is a string or a sequence of references; empty ones of several are left out.
  Returns `{"cider": score}`, the mean over the examples.
  """

  scores: ClassVar[tuple[str, ...]] = ("cider",)
  scale: ClassVar[metric.Scale] = metric.Scale(high=10.0)

  tokenizer: Tokenizer = "ptb"

  def statistics(self, targets: Sequence, predictions: Sequence) -> np.ndarray:
    cider = extras.library("pycocoevalcap.cider.cider", of="cider", install=INSTALL).Cider()
    references, outputs = tokenized(targets, predictions, self.tokenizer, of="cider")
    _, scores = cider.compute_score(
      {index: metric.written(texts) for index, texts in enumerate(references)},
      {index: [text] for index, text in enumerate(outputs)},
    )
    return metric.mean_statistics([scores])

  @property
  def signature(self) -> str:
    return f"pycocoevalcap CIDEr-D, tokenizer {self.tokenizer}, 1- to 4-grams, sigma 6"


coco_rouge_l = CocoRougeL()
cider = Cider()


def tokenized(
  targets: Sequence, predictions: Sequence, tokenizer: Tokenizer, *, of: str
) -> tuple[list[list[str]], list[str]]:
  """(references, outputs) with one blank between their words.

  Args:
    of: the metric that asks, for messages.

  Raises:
    DataError: an example has no reference.
    ConfigError: the tokenizer's package or Java is missing.
  """
  references = metric.all_references(targets)
  # All texts in one run: Java's start takes longer than their tokens.
  flat = [*map(str, predictions), *(text for texts in references for text in texts)]
  # A line is a text to the tokenizer, so none may hold a line break.
  flat = [" ".join(text.split()) for text in flat]
  if tokenizer == "ptb":
    flat = _ptb(flat, of)
  texts = iter(flat[len(predictions) :])
  return [[next(texts) for _ in each] for each in references], flat[: len(predictions)]


def _ptb(lines: Sequence[str], of: str) -> list[str]:
  """Each line in Stanford's tokens.

  The package's own function writes a file into the installation, which may be read-only, and shows
  Java's messages; its list of punctuation and its archive are what is used here.
  """
  package = extras.library("pycocoevalcap.tokenizer.ptbtokenizer", of=of, install=INSTALL)
  archive = extras.beside(package, package.STANFORD_CORENLP_3_4_1_JAR)
  # An empty line is no line to it where it is the last one.
  found = java(
    ["-cp", str(archive), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase"],
    "".join(f"{line}\n" for line in [*lines, "end"]),
    of=of,
  )
  if len(found) < len(lines) + 1:
    raise errors.DataError(
      f"Stanford's tokenizer gave {len(found) - 1} lines for {len(lines)} texts of the metric '{of}'; "
      "look for control characters in the predictions and references."
    )
  dropped = frozenset(package.PUNCTUATIONS)
  kept = ((word for word in line.split(" ") if word not in dropped) for line in found[: len(lines)])
  return [" ".join(filter(None, words)) for words in kept]


def java(arguments: Sequence[str], text: str, *, of: str, instead: str = "") -> list[str]:
  """Lines that a Java program writes when it reads `text`.

  Args:
    of: the metric that runs it; instead: what else a user may do without Java.

  Raises:
    ConfigError: there is no Java, or the program failed.
  """
  program = extras.program("java", of=of, advice=f"{_JAVA}{instead}.")
  done = subprocess.run(
    # Java would take the encoding of the locale, which on servers is often ASCII.
    [program, "-Dfile.encoding=UTF-8", *arguments],
    input=text.encode(),
    capture_output=True,
    check=False,
  )
  if done.returncode:
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["nothing"]
    raise errors.ConfigError(
      f"Java ended with {done.returncode} while it computed '{of}', and said: {said[-1]}; check that "
      "`java -version` works and that 2 GB of memory are free."
    )
  return done.stdout.decode().split("\n")
