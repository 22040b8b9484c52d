"""What keeps a repository current by itself, and speaks with the programs around it."""
