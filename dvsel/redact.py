"""Text from outside, made fit to be kept and shown: without passwords, without what a terminal would obey.

A secret is the password in a URL (`https://user:password@host`, `s3://key:secret@bucket`), a name that stands alone in
front of a web host, where services take tokens, and the value of a parameter that is called like one (`?token=`,
`&X-Amz-Signature=`). `HIDDEN` takes its place, which nothing can be opened with.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "***"

_NO_SECRETS = "(?:github|git)"  # user:repository@branch
_PASSWORD = re.compile(
    rf"(?<![\w+.-])(?!{_NO_SECRETS}://)([a-z][\w+.-]*://[^\s/?#@:]*):(?!:)"
    r"(?:[^\s/?#]+|(?!\d+(?:[/?#]|$))[^\s?#@]+)@",  # the latter with a slash, as secret keys have, but no port
    re.IGNORECASE,
)
_TOKEN = re.compile(r"\b(https?://)[^\s/?#@:]+@", re.IGNORECASE)
_PARAMETER = re.compile(
    r"([?&#;](?:(?:[\w.-]*[_-])?(?:token|signature|sig|secret|password|passwd|pwd|credential|auth)"
    r"|(?:(?:api|access|account|secret|subscription)[_-]?)?key)=)"
    r"[^\s&#;'\"]+",
    re.IGNORECASE,
)
_HIDDEN = re.compile(rf"://[^\s/?#@]*{re.escape(HIDDEN)}@|[?&#;][\w.-]+={re.escape(HIDDEN)}")
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def without_secrets(text: str) -> str:
    """The text with `HIDDEN` for each secret in a URL. Twice is as once."""
    for pattern, rest in ((_PASSWORD, rf"\1:{HIDDEN}@"), (_TOKEN, rf"\1{HIDDEN}@"), (_PARAMETER, rf"\1{HIDDEN}")):
        text = pattern.sub(rest, text)
    return text


def kept(value: Any) -> Any:
    """Plain values for a file that others may read: lists and mappings, without secrets in their strings."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {kept(name): kept(part) for name, part in value.items()}
    return [kept(part) for part in value] if isinstance(value, list | tuple) else value


def lacks_secrets(url: str) -> bool:
    """True if a secret of the URL was taken out."""
    return bool(_HIDDEN.search(url))


def printable(text: str) -> str:
    """One line for a terminal: without secrets, and control characters, marks that turn the direction of writing and
    bytes that are no UTF-8 as escapes (`\\x1b`)."""
    return _OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode(), without_secrets(text))
