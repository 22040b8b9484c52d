"""What keeps a repository's index and model current, and lets others work on it, without a hand on it."""
