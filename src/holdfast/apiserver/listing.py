"""Lists: selection, paging, and lists as of an earlier revision.

A page's continue token names the revision the first page was made at and the key after which
to go on, so all pages show one state of the store, however much is written in between.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

import msgspec

from holdfast.api import errors, fields
from holdfast.api.kinds import Kind
from holdfast.apiserver import gotext
from holdfast.apiserver.selection import Selection
from holdfast.store import errors as store_errors
from holdfast.store.log import Store
from holdfast.store.records import Record

MATCHES = ("Exact", "NotOlderThan")
# kubectl asks for tables in pages of so many rows, and after ten of them waits a fifth of a second
# before each. Kubernetes lets a server exceed a limit, so rows for people come in larger pages.
_TABLE_LIMIT, _TABLE_PAGE = 500, 2000
_EXPIRED = "The resourceVersion for the provided list is too old."
_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. "
    "You can start a new list without the continue parameter, or use the continue token in this "
    "response to retrieve the remainder of the results. Continuing with the provided token results "
    "in an inconsistent list - objects that were created, modified, or deleted between the time "
    "the first chunk was returned and now may show up in the list."
)
# The revision in a token that goes on with what there is now.
_NEWEST = -1


class Page(NamedTuple):
    """The records of one page and the list's metadata."""

    records: list[Record]
    meta: dict[str, Any]


class _Token(NamedTuple):
    revision: int
    after: str


def _encode_token(token: _Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _decode_token(text: str) -> _Token:
    try:
        padded = text + "=" * (-len(text) % 4)
        return msgspec.json.decode(base64.urlsafe_b64decode(padded), type=_Token)
    except (ValueError, msgspec.DecodeError) as error:
        first = base64.urlsafe_b64decode(text[:4].ljust(4, "A"))[:1].decode(errors="replace")
        raise errors.BadRequest(
            "invalid continue token: continue key is not valid: "
            f"invalid character '{first}' looking for beginning of value"
        ) from error


def revision_of(text: str, option: str = "") -> int:
    """A resourceVersion as a number; what cannot be one is a 500, as Kubernetes answers.

    `option` is the query parameter it came in, if it did not come in an object.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
    raise errors.InternalError.unknown(
        f'{option}: Invalid value: "{text}": {why}' if option else why
    )


def check_reached(store: Store, text: str) -> int:
    """The revision a reader asks for; raises `Timeout` if the store has not got there."""
    asked = revision_of(text, "resourceVersion")
    if asked > store.revision:
        raise errors.Timeout.future(asked, store.revision)
    return asked


def page(
    store: Store, kind: Kind, selection: Selection, query: dict[str, str], *, table: bool = False
) -> Page:
    """The list a GET of a collection asks for; raises `Expired`, `Invalid`, `Timeout`.

    `table` says that it is shown as a table, whose pages may be longer than the limit.
    """
    prefix = f"{selection.namespace}/" if selection.namespace and kind.namespaced else ""
    limit = _limit(query)
    if table and limit == _TABLE_LIMIT:
        limit = _TABLE_PAGE
    token = _decode_token(query["continue"]) if query.get("continue") else None
    revision = _revision(store, query, token)
    records = _records(store, kind, prefix, revision, token)
    if token is not None:
        records = [record for record in records if record.key > token.after]
    if not selection.everything:
        records = [record for record in records if selection.matches(record.obj)]
    meta: dict[str, Any] = {"resourceVersion": str(revision)}
    if limit and len(records) > limit:
        meta["continue"] = _encode_token(_Token(revision, records[limit - 1].key))
        if selection.everything:
            meta["remainingItemCount"] = len(records) - limit
        records = records[:limit]
    return Page(records, meta)


def _limit(query: dict[str, str]) -> int:
    text = query.get("limit") or "0"
    try:
        return max(0, int(text))
    except ValueError as error:
        raise errors.BadRequest(gotext.not_an_integer(text)) from error


def _revision(store: Store, query: dict[str, str], token: _Token | None) -> int:
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match or "sendInitialEvents" in query:
        _check_match(query, match, text)
    if token is not None:
        if text not in ("", "0"):
            raise errors.BadRequest(
                "specifying resource version is not allowed when using continue"
            )
        return store.revision if token.revision == _NEWEST else token.revision
    asked = check_reached(store, text) if text else 0
    return asked if match == "Exact" else store.revision


def _check_match(query: dict[str, str], match: str, revision: str) -> None:
    path = "resourceVersionMatch"
    causes = []
    if match and not revision:
        why = "resourceVersionMatch is forbidden unless resourceVersion is provided"
        causes.append(fields.forbidden(path, why))
    if match and query.get("continue"):
        why = "resourceVersionMatch is forbidden when continue is provided"
        causes.append(fields.forbidden(path, why))
    if match and match not in MATCHES:
        causes.append(fields.not_supported(path, match, (*MATCHES, ""), in_order=True))
    if match == "Exact" and revision == "0":
        why = 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
        causes.append(fields.forbidden(path, why))
    if "sendInitialEvents" in query:
        why = "sendInitialEvents is forbidden for list"
        causes.append(fields.forbidden("sendInitialEvents", why))
    if causes:
        raise errors.Invalid.of("meta.k8s.io", "ListOptions", "", causes)


def _records(
    store: Store, kind: Kind, prefix: str, revision: int, token: _Token | None
) -> list[Record]:
    if revision == store.revision:
        return store.scan(kind.bucket, prefix)
    try:
        return store.scan_at(kind.bucket, revision, prefix)
    except store_errors.Compacted as error:
        if token is None:
            raise errors.Expired.of(_EXPIRED) from error
        rest = _encode_token(_Token(_NEWEST, token.after))
        raise errors.Expired.of_page(_CONTINUE_EXPIRED, rest) from error
    except store_errors.FutureRevision as error:
        raise errors.Timeout.future(error.revision, error.current) from error
