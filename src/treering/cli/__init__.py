"""The command line. Turns arguments into operations, and results into text or JSON."""
