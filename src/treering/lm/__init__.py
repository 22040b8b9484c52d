"""The language model: its base, its training, its verdict, its files. The only room that imports torch."""
