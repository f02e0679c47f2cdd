"""What every controller stands on: client, informers, work queue, controller loop, events.

The vocabulary is client-go's. Nothing here knows whether the API is the embedded one or a real
cluster's; a `client.Client` hides the difference.
"""
