"""Installing on a cluster: the chart, and a renderer for those who have no Helm.

`chart/` is the one source, a Helm chart that keeps to a small part of the template language;
`templates` renders that part, `manifests` puts values in. What both give is the same.
"""
