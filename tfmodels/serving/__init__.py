"""An OpenAI-compatible server: requests over HTTP, answered by `tfmodels.generation.Engine`.

`application.make_app` makes an ASGI application; `tfmodels serve` runs it. Modules are imported one by one, since the
web framework (`pip install 'tfmodels[serve]'`) is an extra, and reading and checking a request needs no backend.
"""
