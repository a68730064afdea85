"""TextbookQA of MRQA, out of domain: school books on science."""

from promot_jax.data import questions_on_text
from promot_jax.micro import passages, world

TASK = questions_on_text.out_of_domain(
  "mrqa_textbook_qa",
  "TextbookQA",
  1503,
  micro=world.source("mrqa_textbook_qa", passages.textbook_qa, pretrained=False),
)
