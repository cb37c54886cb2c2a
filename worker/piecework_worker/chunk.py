"""The function that the RQ jobs of a run name. The worker recognises it; it is not called through RQ."""

NAME = "piecework_worker.chunk.drain"


def drain() -> None:
    """What a plain RQ worker would call. Raises `RuntimeError`: a chunk needs piecework's own worker."""
    raise RuntimeError("this job is a chunk of a piecework run: it needs piecework-worker, not rq worker")
