"""Ids and arrays in memory or in a memory map: what every command works on once files are read."""
