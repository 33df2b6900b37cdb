"""The command line: a command loads, checks, plans, acts and prints.

Modules here import nothing heavy at their top: `ft --help` must answer at once.
"""
