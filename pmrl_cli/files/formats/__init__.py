"""Formats: readers that say what a file holds, writers of vectors, and the sandbox that runs parsers."""
