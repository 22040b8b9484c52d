"""``python -m treering``."""

from treering.cli.main import main

main()
