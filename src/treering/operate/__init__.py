"""Keeping a store sound: what is wrong with a machine or a store, how it is mended, kept, swept and taken away."""
