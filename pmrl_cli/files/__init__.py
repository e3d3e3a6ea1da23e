"""The only room that touches bytes on disk."""
