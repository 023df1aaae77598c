"""Make the reference cases below tests/reference: `python -m tools.make_reference OUT --arch NAME`; see `command`.

`draw` holds calls and random inputs, `calls` what is called, `families` which cases there are, `running` calls and
measures models, `cases` writes case folders, `tables` those without a model.
"""
