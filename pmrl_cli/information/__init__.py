"""What modalities say of a label: held-out information of every subset of them, and the share of each."""
