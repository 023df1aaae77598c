"""Make the reference cases below tests/reference: `python -m tools.make_reference OUT --arch NAME`; see `command`.

`calls` holds what is called, `families` which cases there are; `cases` runs, measures and writes them, `tables` writes
those without a model.
"""
