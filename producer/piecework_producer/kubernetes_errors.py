"""What a cluster may refuse, sorted by what follows from it. Every message says what, where and what to do.

Made in `piecework_producer.kubernetes_api` from what the API server answers; the classes are the only thing
that the rest of the producer knows of an HTTP status.
"""

from piecework.errors import PieceworkError, UsageError


class ClusterError(PieceworkError):
    """The cluster did not do what was asked; nothing was changed, unless the message says so."""


class NoCluster(ClusterError):
    """No kubeconfig and not in a pod, no such context, or nothing answers at the API server's address."""


class ClusterAway(ClusterError):
    """The API server does not answer, or answers 429 or 5xx, for longer than the patience. Worth trying
    again.
    """


class StreamLost(ClusterAway):
    """A watch or a log ended before its time; it can be resumed from where it was."""


class NotPermitted(ClusterError):
    """401, or 403 by the authorizer; the message names the verb and the resource."""


class QuotaExceeded(ClusterError):
    """403: a ResourceQuota of the namespace is used up."""


class Refused(ClusterError, UsageError):
    """400, 422, or an admission plugin said no: the object itself is wrong, and would be wrong again."""


class NotFound(ClusterError):
    """404."""


class AlreadyExists(ClusterError):
    """409: there is an object of this name."""


class Conflict(ClusterError):
    """409: the object was changed or replaced since it was read, or a precondition does not hold."""


class Expired(ClusterError):
    """410: the resourceVersion is too old for a watch; list again."""


class ForeignJob(ClusterError, UsageError):
    """There is a Job of this name that belongs to somebody else, or to another run. It was not touched."""


class JobDiffers(ClusterError, UsageError):
    """The run's Job is at work with another specification. It was not touched."""
