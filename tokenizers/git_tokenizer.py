"""The seed's script: `python3 tokenizers/git_tokenizer.py --help`."""

from treering.cli.seed import tokenize

tokenize()
