"""What one pass over the data accumulates: bounded, additive, mergeable."""
