"""DROP of MRQA, out of domain: questions that need to count and compare."""

from promot_jax.data import questions_on_text

TASK = questions_on_text.out_of_domain("mrqa_drop", "DROP", 1503)
