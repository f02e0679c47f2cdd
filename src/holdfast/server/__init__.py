"""Composition root: from configuration to running objects.

This is the only package that wires the others together. It holds what one
`holdfast up` process owns besides its objects: its configuration, its data
directory with the lock on it, its certificates and tokens, and the kubeconfig
it hands out. Everything else receives what it needs and knows no paths.
"""
