"""What keeps an index going by itself: hooks that ask, the queue they ask in, the units that start the watcher."""
