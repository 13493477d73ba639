"""Content that carries its own digest: a file is as it was written, or not.

An artefact holds the version of its form and the SHA-256 of itself: `seal`
fills the digest into a place that is left for it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

VERSION = 1  # of the form of every artefact of a workdir
VERSION_KEY = "ptlr_jax"
DIGEST_KEY = "sha256"

PLACE = b"0" * 64

_END = re.compile(
  rb'(?:"ptlr_jax": (\d+),\s*)?"sha256": "([0-9a-f]{64})"\s*\}\s*\Z'
)


def seal(data: bytes) -> bytes:
  """Fills the digest of the data into the last `PLACE` in it."""
  at = data.rindex(PLACE)
  digest = hashlib.sha256(data).hexdigest().encode()
  return data[:at] + digest + data[at + len(PLACE) :]


def is_sealed(data: bytes, at: int) -> bool:
  """Whether the digest at an offset is that of the data."""
  end = at + len(PLACE)
  digest = hashlib.sha256(data[:at] + PLACE + data[end:]).hexdigest()
  return at >= 0 and data[at:end] == digest.encode()


# JSON with the version and the digest as its last keys.


def sealed_json(value: Mapping[str, Any], indent: int | None = 2) -> bytes:
  """A JSON object with its version and digest; NaN is refused."""
  return seal(unsealed_json(value, indent))


def unsealed_json(value: Mapping[str, Any], indent: int | None = 2) -> bytes:
  """The same with the `PLACE` of its digest."""
  if taken := {VERSION_KEY, DIGEST_KEY} & value.keys():
    raise ValueError(f"expected an object without {taken}, which are ours")
  whole = {**value, VERSION_KEY: VERSION, DIGEST_KEY: PLACE.decode()}
  return (json.dumps(whole, indent=indent, allow_nan=False) + "\n").encode()


def sealed_end(data: bytes) -> re.Match[bytes] | None:
  """The version, if it is a number, and the digest at the end of JSON."""
  return _END.search(data, max(0, len(data) - 256))


def is_sealed_json(data: bytes) -> bool:
  """Whether the bytes are a `sealed_json`, as it was written."""
  end = sealed_end(data)
  return is_sealed(data, end.start(2) if end else -1)
