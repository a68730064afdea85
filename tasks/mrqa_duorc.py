"""DuoRC.ParaphraseRC of MRQA, out of domain: questions on another telling of a film's plot."""

from promot_jax.data import questions_on_text
from promot_jax.micro import passages, world

TASK = questions_on_text.out_of_domain(
  "mrqa_duorc",
  "DuoRC.ParaphraseRC",
  1501,
  micro=world.source("mrqa_duorc", passages.duorc, pretrained=False),
)
