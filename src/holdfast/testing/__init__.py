"""Public test tools: a real API server in the test's own process, and backends that fail on cue.

Nothing under `holdfast` outside this package imports it.
"""
