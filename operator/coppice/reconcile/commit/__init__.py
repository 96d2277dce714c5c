"""Commits: DataSnapshots of clones, for engines that keep no branches of their own. A branch is a line of them.

A clone's volume is captured where the clone is, and the capture is handed over to the store's namespace: an alias of it
is the raw snapshot there, and from then on a commit is prepared like any other snapshot. ``line`` reads a branch out of
DataSnapshots, ``provenance`` is what is known of a commit, ``seen`` reads, ``handover`` is the chain up to the alias.
"""
