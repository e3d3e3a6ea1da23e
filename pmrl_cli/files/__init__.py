"""Bytes on disk: ``durable`` writes, ``formats``, the ``join`` of what they hold, and pmrl's own ``artifacts``.

Each folder uses only those named before it.
"""
