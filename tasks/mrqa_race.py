"""RACE of MRQA, out of domain: English exams."""

from promot_jax.data import questions_on_text

TASK = questions_on_text.out_of_domain("mrqa_race", "RACE", 674)
