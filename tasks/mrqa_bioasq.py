"""BioASQ of MRQA, out of domain: questions of biomedical experts."""

from promot_jax.data import questions_on_text

TASK = questions_on_text.out_of_domain("mrqa_bioasq", "BioASQ", 1504)
