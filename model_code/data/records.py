"""Records of a data set: a photo, a rejected file, the fractions of its splits. Standard library only."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from model_code.data.shards import Split, key_of


@dataclass(frozen=True, slots=True)
class Photo:
    """A readable photo. Its SHA-256 is its identity; `path` is one of the places where it was found."""

    path: str
    label: str
    sha256: str
    phash: int | None
    bytes: int
    suffix: str

    @property
    def key(self) -> str:
        """The name of the photo inside shards and predictions."""
        return key_of(self.sha256)


@dataclass(frozen=True)
class Rejected:
    """A file that was left out, and the reason. Both are for people to read: they always encode as UTF-8."""

    path: str
    reason: str

    def __post_init__(self) -> None:
        # A file name on Linux is any bytes. Python keeps bytes that are not UTF-8 as lone surrogates, which neither a
        # JSON file nor a log can hold.
        for name, text in vars(self).copy().items():
            object.__setattr__(self, name, text.encode("utf-8", "backslashreplace").decode())


@dataclass(frozen=True)
class Unread(Rejected):
    """A file that could not be read this time: nothing is known of it, and the next look tries again."""


@dataclass(frozen=True)
class Fractions:
    """Fractions of each class for validation and test; the rest is for training."""

    valid: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.valid < 1 and 0 < self.test < 1 and self.valid + self.test < 1):
            raise ValueError(
                f"valid and test must be above 0, together below 1: not {self.valid}, {self.test}"
            )

    def to_dict(self) -> dict[str, float]:
        """JSON-ready: all three splits."""
        return {"train": round(1 - self.valid - self.test, 6), "valid": self.valid, "test": self.test}

    def targets(self, photos: int) -> dict[Split, int]:
        """Return photos of a class that validation and test should have: at least one each where there are 3.

        With 2 photos one is trained on and one tested on; validation then rests on the other classes.
        """
        test = max(1, round(photos * self.test))
        valid = max(1 if photos >= 3 else 0, round(photos * self.valid)) if photos - test > 1 else 0
        return {Split.TEST: test, Split.VALID: valid}


def hidden(sha256: str) -> str:
    """Return the entry of a forgotten photo in the list of them: the SHA-256 of its SHA-256 in hex, which hides it."""
    return hashlib.sha256(sha256.encode()).hexdigest()
