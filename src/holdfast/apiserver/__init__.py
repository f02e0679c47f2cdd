"""The embedded Kubernetes API: real `kubectl` talks to it, the controllers call it in-process.

`resources` holds the rules of a write (defaulting, validation, admission, finalizers), `http`
the wire, `watching` the streams. Objects are plain dicts; every rule about a kind comes from
`api.kinds` and `api.validation`.
"""
