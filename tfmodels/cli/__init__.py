"""The `tfmodels` command, a module per sub-command.

It loads no backend before a command needs one.
"""
