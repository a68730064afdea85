"""Registers every task and mixture; what a command line imports before it reads data."""

from tasks import (  # noqa: F401  (imported for their registrations)
  cb,
  mixtures,
  openbookqa,
  rte,
  snli,
  trivia_qa,
  web_questions,
  wic,
  wiki_lingua,
  wmt14_en_fr,
  wmt16_en_de,
  wmt16_en_ro,
  xsum,
)
