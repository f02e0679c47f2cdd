"""Programs that measure Holdfast against figures of a tuned Go stack: `python -m benchmarks`.

A figure here is never a test: machines differ. Each program prints what it measured, the target
and the ratio to what etcd, kube-apiserver, kube-controller-manager, external-provisioner and the
CSI host path driver reached on the same kind of machine.
"""
