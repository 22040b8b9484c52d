"""What a commit says: words for the index, texts for vectors, documents for a language model. No files, no models."""
