"""WMT16 English to Romanian: an unseen generation task."""

from tasks import registration

registration.add("wmt16_en_ro")
