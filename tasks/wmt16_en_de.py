"""WMT16 English to German: an unseen generation task."""

from tasks import registration

registration.add("wmt16_en_de")
