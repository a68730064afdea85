"""Recognizing Textual Entailment of SuperGLUE: the fine-tuned task of the main result."""

from tasks import registration

registration.add("rte")
