"""The grammars of names, keys and label values, with Kubernetes' messages.

Each checker takes a string and returns the complaints about it as plain texts,
an empty tuple when it is fine; the caller knows the field and makes the causes.
Results are remembered, because a control plane sees the same few names again
and again. The texts are those that kubectl users know and tests compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

Checker = Callable[[str], tuple[str, ...]]

_LABEL: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035: Final = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_NAME_PART: Final = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_LABEL_VALUE: Final = rf"({_NAME_PART})?"
_DATA_KEY: Final = r"[-._a-zA-Z0-9]+"
_PORT_NAME: Final = r"[-a-z0-9]+"

_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_name_part = re.compile(_NAME_PART).fullmatch
_is_label_value = re.compile(_LABEL_VALUE).fullmatch
_is_data_key = re.compile(_DATA_KEY).fullmatch


def _explain(rule: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{rule} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_TEXT: Final = _explain(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT: Final = _explain(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, "
    "'-' or '.', and must start and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_LABEL_1035_TEXT: Final = _explain(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_NAME_PART_TEXT: Final = _explain(
    "must consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character",
    _NAME_PART,
    "MyName",
    "my.name",
    "123-abc",
)
_LABEL_VALUE_TEXT: Final = _explain(
    "a valid label must be an empty string or consist of alphanumeric characters, "
    "'-', '_' or '.', and must start and end with an alphanumeric character",
    _LABEL_VALUE,
    "MyValue",
    "my_value",
    "12345",
)
_DATA_KEY_TEXT: Final = _explain(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _DATA_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)


@lru_cache(maxsize=8192)
def label(text: str) -> tuple[str, ...]:
    """Check a DNS-1123 label: 63 characters, no dots."""
    if _is_label(text) or not _is_subdomain(text):
        return _check(text, 63, _is_label(text), _LABEL_TEXT)
    return _check(text, 63, None, "must not contain dots")


@lru_cache(maxsize=8192)
def subdomain(text: str) -> tuple[str, ...]:
    """Check a DNS-1123 subdomain: 253 characters, the name of most objects."""
    return _check(text, 253, _is_subdomain(text), _SUBDOMAIN_TEXT)


@lru_cache(maxsize=1024)
def label_1035(text: str) -> tuple[str, ...]:
    """Check a DNS-1035 label, the name of a Service: it starts with a letter."""
    return _check(text, 63, _is_label_1035(text), _LABEL_1035_TEXT)


@lru_cache(maxsize=8192)
def label_value(text: str) -> tuple[str, ...]:
    """Check the value of a label; empty is fine."""
    return _check(text, 63, _is_label_value(text), _LABEL_VALUE_TEXT)


@lru_cache(maxsize=8192)
def qualified(text: str) -> tuple[str, ...]:
    """Check a key such as `example.com/MyName`, whose prefix may be missing."""
    prefix, slash, name = text.rpartition("/")
    if "/" in prefix:
        optional = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return (f"a qualified name {_NAME_PART_TEXT} {optional}",)
    said: list[str] = []
    if slash and not prefix:
        said.append("prefix part must be non-empty")
    elif slash:
        said += [f"prefix part {rule}" for rule in subdomain(prefix)]
    if not name:
        said.append("name part must be non-empty")
    wrong = _check(name, 63, _is_name_part(name), _NAME_PART_TEXT)
    said += [f"name part {rule}" for rule in wrong]
    return tuple(said)


@lru_cache(maxsize=1024)
def data_key(text: str) -> tuple[str, ...]:
    """Check a key of a ConfigMap or Secret; it may become a file name."""
    said = list(_check(text, 253, _is_data_key(text), _DATA_KEY_TEXT))
    if text in (".", ".."):
        said.append(f"must not be '{text}'")
    elif text.startswith(".."):
        said.append("must not start with '..'")
    return tuple(said)


@lru_cache(maxsize=1024)
def path_segment(text: str) -> tuple[str, ...]:
    """Check a name that has no grammar but has to fit into a URL path."""
    if text in (".", ".."):
        return (f"may not be '{text}'",)
    return tuple(f"may not contain '{bad}'" for bad in "/%" if bad in text)


@lru_cache(maxsize=1024)
def port_name(text: str) -> tuple[str, ...]:
    """Check the name of a container's port, by the rules of service names."""
    said: list[str] = []
    if len(text) > 15:
        said.append("must be no more than 15 characters")
    if not re.fullmatch(_PORT_NAME, text):
        said.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", text):
        said.append("must contain at least one letter (a-z)")
    if "--" in text:
        said.append("must not contain consecutive hyphens")
    if text.startswith("-") or text.endswith("-"):
        said.append("must not begin or end with a hyphen")
    return tuple(said)


def generated(check: Checker) -> Checker:
    """Return the check of a `generateName` prefix: a dash at its end is filled up later."""

    def check_prefix(text: str) -> tuple[str, ...]:
        return check(f"{text[:-1]}a" if len(text) > 1 and text.endswith("-") else text)

    return check_prefix


def _check(text: str, longest: int, matched: object, rule: str) -> tuple[str, ...]:
    if matched and len(text) <= longest:
        return ()
    too_long = f"must be no more than {longest} characters"
    return tuple(
        said for said, wrong in ((too_long, len(text) > longest), (rule, not matched)) if wrong
    )
