"""Many replicas of an exported SavedModel on Ray Serve, which answer TensorFlow Serving's requests.

    tfmodels export stories260K --to saved_model -o models/stories
    python examples/ray_serve.py models/stories --replicas 2 --port 8501
    curl -s http://localhost:8501/v1/models/stories

On a cluster every machine needs the folder under the same path. Each replica is the server of `serve_saved_model.py`,
batching included; Ray starts them, spreads requests over them and replaces those that die. Needs
`pip install 'tfmodels[serve]' 'ray[serve]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
from pathlib import Path
from typing import Any

from serve_saved_model import check_folder, make_app


def application(folder: str | Path, name: str, replicas: int, cpus: float) -> Any:
    """The replicas of one model, to be given to `serve.run`.

    Args:
        folder: of the model, or of one of its versions.
        name: what the model is called.
        replicas: how many processes.
        cpus: cores that each of them counts for.
    """
    from ray import serve

    folder = str(Path(folder).resolve())

    @serve.deployment(num_replicas=replicas, ray_actor_options={"num_cpus": cpus})
    @serve.ingress(lambda: make_app(folder, name))
    class Model:
        """A process with the model."""

    return Model.bind()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="an exported SavedModel: the folder that holds its versions")
    parser.add_argument("--name", help="what the model is called (the folder's name)")
    parser.add_argument("--replicas", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--cpus", type=float, default=1.0, help="cores for each (%(default)s)")
    parser.add_argument("--address", help="of a Ray cluster; by default one is started here")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8501)
    options = parser.parse_args(arguments)
    check_folder(parser, options.folder)
    if importlib.util.find_spec("ray") is None:
        parser.error("ray is not installed: pip install 'ray[serve]'")
    import ray
    from ray import serve

    ray.init(address=options.address)
    serve.start(http_options={"host": options.host, "port": options.port})
    name = options.name or options.folder.resolve().name
    serve.run(application(options.folder, name, options.replicas, options.cpus), route_prefix="/")
    print(f"http://{options.host}:{options.port}/v1/models/{name} is served; Ctrl-C ends it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    main()
