"""Small tools that know nothing about Kubernetes or storage.

Everything else may import this package and it imports nothing of Holdfast,
so what lives here must make sense in any asyncio program: running commands,
locking by key, back-off, the clock, logging, spelling suggestions and durable
file writes.
"""
