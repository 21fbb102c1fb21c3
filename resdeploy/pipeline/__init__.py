"""Where the rooms meet: recipes and commands in, artifacts, records and verdicts out.

`produce`, `evaluate`, `show`, `look` and `run` hold the Python API, one function per command;
`plan` and `execute` are a run; `make` and `compare` are what all of them are made of.
"""
