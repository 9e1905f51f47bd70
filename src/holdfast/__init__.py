"""Protects a whole application, brings it back to one moment, and proves that it can."""
