"""RQ with `SimpleWorker`, which does not fork: faster, and a job that crashes takes the worker with it."""

from bench._rivals._staged import measure
from bench._rivals.rq_jobs import Rq


class SimpleRq(Rq):
    """`rq worker --worker-class rq.SimpleWorker`."""

    worker_class = "rq.SimpleWorker"


if __name__ == "__main__":
    measure(SimpleRq())
