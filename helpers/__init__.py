"""The parts of the course that would distract in a notebook: one module per concern.

Importing ``helpers`` imports no heavy library; each module imports what it needs.
"""
