"""The verbs of holdfast for one application: what the command line, and scripts through ``import holdfast``, call."""
