"""Measurements of the course against what a student would otherwise use; ``make bench`` runs all of them."""
