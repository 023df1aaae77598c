"""A model behind many replicas on Ray Serve: the server of `tfmodels serve`, on one machine or a cluster.

    python examples/ray_serve.py stories260K --replicas 2 --port 8000
    curl -s http://localhost:8000/v1/completions -H 'Content-Type: application/json' \
        -d '{"prompt": "Once upon a time", "max_tokens": 24}'

Each replica is a process with a model and an engine of its own; Ray spreads requests over them, streams what they
write, replaces those that die, and with --max-replicas starts more while requests wait and ends them again. A folder
of an exported SavedModel is served with TensorFlow Serving's requests, as by `serve_saved_model.py`. On a cluster
every machine needs the model under the same name. Needs `pip install 'tfmodels[serve]' 'ray[serve]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import signal
from pathlib import Path
from typing import Any


def make_replica_app(model: str, name: str, engine: dict[str, Any], most: int) -> Any:
    """The application of one replica.

    Args:
        model: folder, bundled name or hub id of a language model, or folder of an exported SavedModel.
        name: what requests call it.
        engine: of `tfmodels.serving.models.EngineOptions`.
        most: requests that the replica takes at a time.
    """
    if is_export(Path(model)):
        from serve_saved_model import make_app

        return make_app(model, name)
    from tfmodels.serving.application import make_app
    from tfmodels.serving.models import EngineOptions, Spec, load
    from tfmodels.serving.worker import Worker

    worker = Worker(lambda: load([Spec(name, model)], EngineOptions(**engine)), most)
    return make_app(worker, wait=True)  # Ray sends requests to replicas that have started up


def application(
    model: str | Path,
    name: str,
    *,
    replicas: int = 2,
    max_replicas: int | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
    waiting: int = 64,
    **engine: Any,
) -> Any:
    """The replicas of one model, to be given to `serve.run`.

    Args:
        model: as of `make_replica_app`.
        name: what requests call it.
        replicas: how many processes; with `max_replicas`, at least.
        max_replicas: how many processes at most, as requests come; None for always `replicas`.
        cpus, gpus: what each of them counts for in the cluster.
        waiting: requests that may wait for a row of a replica.
        **engine: of `tfmodels.serving.models.EngineOptions`.
    """
    from ray import serve

    model = str(Path(model).resolve()) if Path(model).exists() else str(model)
    rows = engine.get("rows", 8)
    most = rows + waiting
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": cpus, "num_gpus": gpus},
        # The application itself refuses what is too much, in OpenAI's form; Ray only spreads.
        "max_ongoing_requests": most + 8,
        "health_check_period_s": 10,
        "graceful_shutdown_timeout_s": 30,
    }
    if max_replicas is None:
        options["num_replicas"] = replicas
    else:
        options["autoscaling_config"] = {
            "min_replicas": replicas,
            "initial_replicas": replicas,
            "max_replicas": max_replicas,
            # A replica decodes `rows` requests at a time: another one helps once more than that are there.
            "target_ongoing_requests": rows,
            "upscale_delay_s": 5,
            "downscale_delay_s": 120,
        }

    @serve.deployment(**options)
    @serve.ingress(lambda: make_replica_app(model, name, engine, most))
    class Model:
        """A process with the model."""

    return Model.bind()


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported SavedModel, or versions of one."""
    return (folder / "saved_model.pb").is_file() or any(folder.glob("[0-9]*/saved_model.pb"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder, bundled name or hub id; or the folder of an exported SavedModel")
    parser.add_argument("--name", help="what requests call the model (the folder's name)")
    parser.add_argument("--replicas", type=int, default=2, help="(%(default)s)")
    parser.add_argument("--max-replicas", type=int, help="start more replicas while requests wait, up to these")
    parser.add_argument("--rows", type=int, default=8, help="requests at a time, for each replica (%(default)s)")
    parser.add_argument("--waiting", type=int, default=64, help="requests that may wait for each (%(default)s)")
    parser.add_argument("--no-jit", action="store_true", help="run as plain graphs instead of compiling with XLA")
    parser.add_argument("--cpus", type=float, default=1.0, help="cores for each (%(default)s)")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs for each (%(default)s)")
    parser.add_argument("--address", help="of a Ray cluster; by default one is started here")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args(arguments)
    for name, least in (("replicas", 1), ("max_replicas", options.replicas), ("rows", 1)):
        given = getattr(options, name)
        if given is not None and given < least:
            parser.error(f"--{name.replace('_', '-')} {given}: {least} or more was expected")
    if importlib.util.find_spec("ray") is None:
        parser.error("ray is not installed: pip install 'ray[serve]'")
    import ray
    from ray import serve

    # A cluster has its dashboard; one that is started here for this model needs none.
    ray.init(address=options.address, **({} if options.address else {"include_dashboard": False}))
    serve.start(http_options={"host": options.host, "port": options.port})
    name = options.name or Path(options.model).name
    app = application(
        options.model,
        name,
        replicas=options.replicas,
        max_replicas=options.max_replicas,
        cpus=options.cpus,
        gpus=options.gpus,
        waiting=options.waiting,
        rows=options.rows,
        jit_compile=not options.no_jit,
    )
    serve.run(app, route_prefix="/")
    print(f"{name} is served at http://{options.host}:{options.port}; Ctrl-C ends it", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    serve.shutdown()


if __name__ == "__main__":
    main()
