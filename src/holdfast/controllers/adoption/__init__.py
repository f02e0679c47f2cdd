"""Adoption: an existing in-tree PersistentVolume becomes a `csi` one for the same storage.

A volume's source cannot be changed, so the object is made again under its name, with the same claim
by uid; the claim and the data are not touched. `plan` decides what the new object is and refuses
what cannot be done, `record` keeps the old one on disk before anything happens, `exchange` does it.
"""
