"""A fitted model: its members, what they make of features, which instances it has seen, and its folder."""
