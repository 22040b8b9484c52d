"""The seed's script: `python3 embeddings/embedding_generator.py --help`."""

from treering.cli.seed import embed

embed()
