"""How anything is written: whole or not at all, locked, checksummed, within a memory budget."""
