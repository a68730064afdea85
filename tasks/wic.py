"""Word-in-Context of SuperGLUE: is a word used in one sense in two sentences."""

from tasks import registration

registration.add("wic")
