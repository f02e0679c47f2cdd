"""Admission of ResourceQuota: refuses what would exceed a namespace's limits.

What is used is counted anew from the store for each write that a quota concerns, staged writes
included, so two claims made in the same moment cannot both take the last of it. A namespace
without quotas pays one look.
"""

from __future__ import annotations

from typing import Any

from holdfast.api import errors, kinds, podusage, usage
from holdfast.api.kinds import Kind
from holdfast.store.log import Store

Object = dict[str, Any]


def check(store: Store, kind: Kind, new: Object, old: Object | None = None) -> None:
    """Raise Forbidden when `new` asks for more than is left; `old` is what it replaces."""
    if not store.count(kinds.RESOURCE_QUOTA.bucket) or not kind.namespaced:
        return
    meta = new["metadata"]
    prefix = f"{meta['namespace']}/"
    quotas = [record.obj for record in store.scan(kinds.RESOURCE_QUOTA.bucket, prefix)]
    quotas = [quota for quota in quotas if usage.covers(quota, kind, new)]
    if not quotas:
        return
    if kind is kinds.POD and old is None:
        _check_said(quotas, new)
    asked = _increase(kind, new, old)
    if not asked:
        return
    objs = [record.obj for record in store.scan_latest(kind.bucket, prefix)]
    for quota in quotas:
        covered = [obj for obj in objs if usage.covers(quota, kind, obj)]
        _check_one(quota, kind, covered, asked, meta["name"])


def _check_said(quotas: list[Object], pod: Object) -> None:
    """Refuse a pod whose containers do not say how much they want of what is limited."""
    for quota in quotas:
        unsaid = podusage.unsaid(pod, (quota.get("spec") or {}).get("hard") or {})
        if unsaid:
            raise errors.Forbidden.of(
                "",
                kinds.POD.plural,
                pod["metadata"]["name"],
                f"failed quota: {quota['metadata']['name']}: must specify {unsaid}",
            )


def _increase(kind: Kind, new: Object, old: Object | None) -> usage.Amounts:
    asked = usage.of(kind, new)
    if old is None:
        return asked
    had = usage.of(kind, old)
    return {
        name: usage.subtract(amount, had[name]) if name in had else amount
        for name, amount in asked.items()
        if name not in had or amount > had[name]
    }


def _check_one(
    quota: Object, kind: Kind, objs: list[Object], asked: usage.Amounts, name: str
) -> None:
    hard = usage.limits(quota)
    used = usage.total(kind, objs, [each for each in hard if each in asked])
    exceeded = sorted(
        each for each, had in used.items() if usage.add(had, asked[each]) > hard[each]
    )
    if not exceeded:
        return
    requested, present, limited = (
        ",".join(f"{each}={amounts[each].canonical()}" for each in exceeded)
        for amounts in (asked, used, hard)
    )
    raise errors.Forbidden.of(
        kind.group,
        kind.plural,
        name,
        f"exceeded quota: {quota['metadata']['name']}, requested: {requested}, "
        f"used: {present}, limited: {limited}",
    )
