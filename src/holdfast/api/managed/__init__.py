"""Who owns which field: `metadata.managedFields` and server-side apply.

Every writer of an object owns the fields it set last; server-side apply merges what one writer
declares into an object, refuses to overrule other owners unless forced, and takes away what that
writer declared before and declares no more. The rules are Kubernetes'.

From the bottom up:

- `elements`: one step of a path, `f:spec`, `k:{"name":"data"}`, `v:"a"`.
- `sets`: sets of paths, kept in the very form they have on the wire, so that nothing is ever
  encoded or parsed for a write.
- `types`: what a shape says about ownership: which values are owned only as a whole.
- `comparing`, `declaring`, `checking`, `merging`, `removing`: the walks over typed values.
- `outlining`: a cheap key for a comparison, so that writers who do the same again and again are
  compared in full only once.
- `entries`: the list in `metadata.managedFields`.
- `updating`, `applying`, `conflicts`, `lastapplied`: what a write makes of that list,
  and of the object.

Invariant: sets and objects are immutable by convention. Every function returns a new value, or
its argument itself when nothing changed, and shares whatever stayed the same.
"""
