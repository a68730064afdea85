"""A vocabulary of whole words: text to ids and back without any library.

The words are data of the package (vocabulary.txt, one per line, line number = id): 0 <pad>, 1 </s>,
2 <unk>, then T5's first eight sentinels, eight words of tasks on tables and passages, punctuation and words.
The shipped models have met at most five sentinels and none of those eight words, which took the place of
further sentinels.  Text is cut at white space, before . , ? ! ; and around sentinels.  A colon or a closing
bracket belongs to its word, "Q:", "answer:", "A)", unless it stands alone.  Decoding puts punctuation back to
the word before it, so that text written with single blanks comes back as it was.
"""

import functools
import importlib.resources
import re
from collections.abc import Iterable, Sequence

from promot_jax.data.frames import Frame
from promot_jax.data.joining import TWO_TEXTS

PAD, EOS, UNKNOWN = 0, 1, 2
SENTINELS = 8

# Regular expressions in the common part of Python's and RE2's language: the same cuts in a tf.data
# graph, see sources.py.
BREAKS = ((r"([.,?!;])", r" \1 "), (r"(<extra_id_\d+>)", r" \1 "))
SPECIAL = re.compile(r"<(pad|/s|unk|extra_id_\d+)>")
_PUNCTUATION = frozenset(".,?!;")


class Vocabulary:
  """Word ids.  Two vocabularies are equal if their words are.

  Args:
    words: all words, by id; the first three are <pad>, </s> and <unk>.
  """

  def __init__(self, words: Sequence[str]):
    self.words = tuple(words)
    self.all_ids = {word: number for number, word in enumerate(self.words)}
    self.text_ids = {word: i for word, i in self.all_ids.items() if not SPECIAL.fullmatch(word)}
    """Without special tokens: what a text can be made of."""

  @property
  def size(self) -> int:
    """Number of words."""
    return len(self.words)

  # What tokenization asks every vocabulary for; texts are framed as T5's are.
  pad, eos, bos, unknown, family = PAD, EOS, None, UNKNOWN, "t5"
  input_frame = target_frame = Frame(suffix=(EOS,))
  joining = TWO_TEXTS
  serves_decoders = True
  """To the decoder-only model of this world the end of an input is what leads to its answer."""

  def __eq__(self, other: object) -> bool:
    return isinstance(other, Vocabulary) and self.words == other.words

  def __hash__(self) -> int:
    return hash(self.words)

  def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
    """Ids of the text, without an end mark; what is not in the vocabulary is <unk>.

    Args:
      special_tokens: whether "<extra_id_0>" in the text is the sentinel; else it is an unknown word.
    """
    ids = self.all_ids if special_tokens else self.text_ids
    return [ids.get(word, UNKNOWN) for word in cut(text)]

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the ids up to the first </s>; <pad> is left out."""
    pieces: list[str] = []
    for number in ids:
      number = int(number)
      if number == EOS:
        break
      if number == PAD:
        # Left out, since rows are padded to one length.
        continue
      word = self.words[number] if 0 <= number < len(self.words) else self.words[UNKNOWN]
      if pieces and word not in _PUNCTUATION:
        # No blank before a mark, and none at the beginning.
        pieces.append(" ")
      pieces.append(word)
    return "".join(pieces)

  def sentinel(self, number: int) -> int:
    """Id of <extra_id_number>."""
    return self.all_ids[f"<extra_id_{number}>"]


def cut(text: str) -> list[str]:
  """The words and marks of a text."""
  for pattern, replacement in BREAKS:
    text = re.sub(pattern, replacement, text)
  return text.split()


@functools.cache
def vocabulary() -> Vocabulary:
  """The vocabulary of the micro world, from the package's data."""
  data = importlib.resources.files(__package__) / "vocabulary.txt"
  # One word a line: no word has a blank.
  return Vocabulary(data.read_text(encoding="utf-8").split())
