"""The parts of a REST server for SavedModels that speaks as TensorFlow Serving does (examples/serve_saved_model.py).

`messages` reads requests and writes answers, `batching` runs what waits together, `connections` lets slow clients go.
Nothing here loads TensorFlow by being imported.
"""
