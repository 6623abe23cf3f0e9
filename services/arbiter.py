"""`bentoml serve`, started without what a server has no use for: python -m hone.services.arbiter serve SERVICE ...

What `hone serve` runs. It is BentoML's own command, in a command line that holds no other, and its workers start so,
too. `bentoml serve` itself serves the same; its processes take longer to start, and more memory.
"""

from __future__ import annotations

from hone.processes import end_quickly

from .deferred import defer, real

WORKER = "hone.services.worker"


def main() -> None:
    """Run BentoML's `serve`; its options are those of the command line."""
    defer()
    end_quickly()
    import _bentoml_impl.server.serving
    from bentoml._internal.context import server_context
    from bentoml_cli.serve import serve_command

    serving = real(_bentoml_impl.server.serving)
    if not hasattr(serving, "_SERVICE_WORKER_SCRIPT"):
        raise AttributeError("BentoML starts its workers in another way now")
    serving._SERVICE_WORKER_SCRIPT = WORKER  # type: ignore[attr-defined]
    server_context.service_type = "cli"
    serve_command(prog_name="bentoml")


if __name__ == "__main__":
    main()
