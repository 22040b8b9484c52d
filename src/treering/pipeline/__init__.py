"""The order of the stages, and nothing else: git → records → documents → index and tokens → model.

`treering run` drives the stages through the store; the seed's scripts drive the same stages from file to file.
"""
