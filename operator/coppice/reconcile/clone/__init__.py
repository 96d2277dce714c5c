"""The parts of a DataClone's reconciliation; ``coppice.reconcile.dataclone`` puts them together.

``observe`` reads; everything else is pure: ``target`` says which copy is wanted, ``source``, ``volume``, ``server`` and
``binding`` are the links of the chain, ``lifetime`` ends it, ``leftovers`` clears up behind it, ``status`` tells.
"""
