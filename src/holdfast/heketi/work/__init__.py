"""What takes time: operations on volumes, bricks, devices and nodes, each in three phases.

Build (one transaction: what is intended), execute (the nodes, no database), finish or forget (one
transaction). `engine` runs them, resumes them after a crash and tells the queue how they ended.
"""
