"""Why each existing volume is not the one a claim gets.

The rules are those of Kubernetes' binder: class, mode, access modes, size, selector, and that the
volume is free. They are tried in the order in which a reader can do most about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.api import kinds, quantity, selectors, views
from holdfast.diagnosis.causes.answer import listed
from holdfast.diagnosis.causes.picture import Picture


@dataclass(frozen=True, slots=True)
class Candidate:
    """A volume and why the claim does not get it; "" when it fits."""

    name: str
    refusal: str
    code: str = ""
    near: bool = False


def of(picture: Picture, claim: views.Claim) -> list[Candidate]:
    """Judge the volumes of the claim's class, and those of others that fit in all else.

    The nearest come first. A volume that is bound to another claim is no candidate.
    """
    found: list[Candidate] = []
    for obj in picture.all(kinds.VOLUME):
        volume = views.volume(obj)
        if volume.status.phase == "Bound" and not views.is_for(volume.spec.claim_ref, claim):
            continue
        reasons = refusals(volume, claim)
        same_class = views.class_of(volume) == views.class_of(claim)
        if same_class or len(reasons) == 1:
            code = reasons[0][0] if reasons else ""
            text = "; ".join(text for _, text in reasons)
            found.append(Candidate(volume.metadata.name, text, code, len(reasons) <= 1))
    return sorted(found, key=lambda each: (not each.near, each.name))


def refusals(volume: views.Volume, claim: views.Claim) -> list[tuple[str, str]]:
    """Return (code, sentence) for each rule that keeps the volume from the claim."""
    found = [*_state(volume, claim), *_class(volume, claim)]
    spec, wanted = volume.spec, claim.spec
    if quantity.parse(spec.size or "0") < quantity.parse(wanted.request or "0"):
        found.append(("size", f"it has {spec.size or 'no size'}, {wanted.request} is asked for"))
    if spec.volume_mode != wanted.volume_mode:
        text = f"its volumeMode is {spec.volume_mode}, the claim's is {wanted.volume_mode}"
        found.append(("mode", text))
    lacking = [mode for mode in wanted.access_modes if mode not in spec.access_modes]
    if lacking:
        text = f"it offers {listed(spec.access_modes)}, the claim wants {listed(lacking)}"
        found.append(("access", text))
    if not _selected(volume, claim):
        found.append(("selector", "its labels are not what the claim's selector wants"))
    return found


def affinity_text(volume: views.Volume) -> str:
    """Write what a volume's node affinity wants, for people."""
    required = volume.spec.node_affinity.required if volume.spec.node_affinity else None
    terms = (required or {}).get("nodeSelectorTerms") or ()
    return " or ".join(
        " and ".join(
            f"{each.get('key')} {each.get('operator')} {','.join(each.get('values') or ())}".strip()
            for each in [*(term.get("matchExpressions") or ()), *(term.get("matchFields") or ())]
        )
        for term in terms
    )


def _state(volume: views.Volume, claim: views.Claim) -> Sequence[tuple[str, str]]:
    if volume.metadata.terminating:
        return [("deleting", "it is being deleted")]
    reference = volume.spec.claim_ref
    if reference is not None and not views.is_for(reference, claim):
        whose = f"{reference.namespace}/{reference.name}"
        if whose == f"{claim.metadata.namespace}/{claim.metadata.name}":
            text = f"its claimRef has the uid of an earlier claim {whose}, which is gone"
            return [("earlier-claim", text)]
        return [("reserved", f"its claimRef reserves it for claim {whose}")]
    if volume.status.phase in ("Released", "Failed"):
        return [("phase", f"it is {volume.status.phase}")]
    return []


def _class(volume: views.Volume, claim: views.Claim) -> Sequence[tuple[str, str]]:
    has, wants = views.class_of(volume), views.class_of(claim)
    if has == wants:
        return []
    return [("class", f"its class is {has or 'empty'}, the claim's is {wants or 'empty'}")]


def _selected(volume: views.Volume, claim: views.Claim) -> bool:
    if claim.spec.selector is None:
        return True
    try:
        selector = selectors.LabelSelector.of(claim.spec.selector)
    except selectors.SelectorError:
        return False
    return selector.matches(volume.metadata.labels)
