"""The messages of CSI and of kubelet's plugin registration, generated from their .proto files.

`tools/generate_csi` makes `*_pb2.py` and `*_pb2.pyi` anew. Only messages and service
descriptors are generated; `holdfast.csi.service` makes handlers from the descriptors.
"""
