"""A real Kubernetes control plane for tests: etcd, kube-apiserver, kube-controller-manager.

The programs come from the directory that `KUBEBUILDER_ASSETS` names, the convention of
Kubernetes' own test environments; `tools/servers/kubernetes/build` makes one.
"""
