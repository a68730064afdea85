"""RelationExtraction of MRQA, out of domain: relations asked for as questions."""

from promot_jax.data import questions_on_text
from promot_jax.micro import passages, world

TASK = questions_on_text.out_of_domain(
  "mrqa_relation_extraction",
  "RelationExtraction",
  2948,
  micro=world.source("mrqa_relation_extraction", passages.relation_extraction, pretrained=False),
)
