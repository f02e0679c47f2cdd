"""The Kubernetes API as data: errors, kinds, quantities, selectors, patches.

The package turns bytes and dictionaries into checked objects and back. It
performs no input or output, holds no state and knows no storage system; the
faces, the controllers and the store all build on it.

Objects are plain dictionaries. Once one has been published (returned from a
store, a cache or a client) nobody changes it; functions here return new
dictionaries that may share untouched parts with their arguments.
"""
