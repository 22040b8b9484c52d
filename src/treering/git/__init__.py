"""Reading a Git history with the git program itself. Knows nothing of stores or of what is done with commits."""
