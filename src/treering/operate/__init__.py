"""Running by itself: what is remembered of every run, what changed, who is told, and how long work gives way."""
