"""Texts to vectors, and vectors to neighbours."""
