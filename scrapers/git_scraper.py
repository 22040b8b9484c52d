"""The seed's script: `python3 scrapers/git_scraper.py --help`."""

from treering.cli.seed import scrape

scrape()
