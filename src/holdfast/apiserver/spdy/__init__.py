"""SPDY/3.1, the server's side, as far as Kubernetes' clients use it.

kubectl before 1.31 talks to containers over it, and every kubectl forwards ports with it, the
newer ones inside a WebSocket. No maintained library speaks it, so here is one: `frames` turns
bytes into frames and back, `connection` makes streams of them over any `links.Link`. The
counterpart is moby/spdystream, and where it departs from the draft this follows it.
"""
