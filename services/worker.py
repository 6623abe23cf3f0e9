"""A worker of BentoML's server, started without what it has no use for: python -m hone.services.worker ..."""

from __future__ import annotations

from hone.processes import end_quickly

from .deferred import defer


def main() -> None:
    """Run BentoML's worker; its options are those of the command line."""
    defer()
    end_quickly()
    from _bentoml_impl.worker.service import main as work

    work()


if __name__ == "__main__":
    main()
