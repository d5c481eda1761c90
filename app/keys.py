"""API keys: a text file of names and digests, which may be changed while the service runs.

A line is ``NAME SHA256 [RATE]``: the SHA-256 of the key in hexadecimal, and how often it may bring a video, as
``60/minute``. ``#`` begins a comment. Several lines may have one name: that is how a key is replaced by another.
"""

import hashlib
import hmac
import logging
import re
import secrets
from dataclasses import dataclass
from pathlib import Path

from limits import RateLimitItem, parse

log = logging.getLogger(__name__)

NAME = re.compile(r"[A-Za-z0-9._-]{1,40}")
DIGEST = re.compile(r"[0-9a-f]{64}")
PREFIX, KEY_BYTES = "lsk_", 32


class KeysError(ValueError):
    """A file of keys that can't be used. The message names the file and the line, and nothing that is in it."""


@dataclass(frozen=True, slots=True)
class Key:
    """``rate``: how often it may bring a video, if that is limited."""

    name: str
    digest: bytes
    rate: RateLimitItem | None


def new_key(name: str, rate: str | None = None) -> tuple[str, str]:
    """A key, and its line for the file. Raises ValueError for a name or a rate that can't be in a file."""
    if not NAME.fullmatch(name):
        raise ValueError("A name has up to 40 letters, digits, dots, dashes and underscores.")
    key = PREFIX + secrets.token_urlsafe(KEY_BYTES)
    line = f"{name} {_digest(key).hex()}"
    if rate is None:
        return key, line
    rate_of(rate)
    return key, f"{line} {rate}"


def rate_of(text: str) -> RateLimitItem:
    """Raises ValueError for what is no rate."""
    try:
        return parse(text)
    except ValueError as error:
        raise ValueError("A rate is a number and a time, as 60/minute or 1000/day.") from error


class Keys:
    """The keys of a file, as it is now. A file that was spoilt meanwhile leaves the keys as they were."""

    def __init__(self, path: Path) -> None:
        """Raises KeysError."""
        self._path = path
        self._version = _version(path)
        self._keys = _read(path)

    def find(self, presented: str) -> Key | None:
        """The key that was presented. All are compared, in constant time."""
        self._look_again()
        digest, found = _digest(presented), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found

    def _look_again(self) -> None:
        version = _version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = _read(self._path)
        except KeysError as error:
            log.error("the keys stay as they were: %s", error)
        else:
            log.info("keys were read again: %s", ", ".join(sorted({key.name for key in self._keys})))


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _version(path: Path) -> tuple[int, int, int] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size


def _read(path: Path) -> list[Key]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KeysError(f"{path}: it can't be read") from error
    found = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            found.append(_key(*words))
        except (TypeError, ValueError):
            raise KeysError(f"{path}, line {number}: it is not NAME SHA256 [RATE]") from None
    if not found:
        raise KeysError(f"{path}: there is no key in it")
    return found


def _key(name: str, digest: str, rate: str | None = None) -> Key:
    if not (NAME.fullmatch(name) and DIGEST.fullmatch(digest)):
        raise ValueError
    return Key(name, bytes.fromhex(digest), rate_of(rate) if rate else None)
