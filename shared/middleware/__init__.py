"""What every request passes through, whichever function or dialect it is for: the order is here.

    edge              who really asks, where the edge in front of us tells
    → context         request id, trace id, log context, one line a request
    → caches          no answer is kept by any
    → cors            preflights, and which page may read the answer
    → problems        errors to problem details
    → authentication  who asks
    → refusals        tells the audit what was refused to whom
    → origin policy   which page may ask
    → compression     of Server-Sent Events
    → authorization   what the endpoint needs (at its route)

Each is pure ASGI and a file of its own.
"""

from starlette.types import ASGIApp

from shared.audit.refusals import Refusals
from shared.audit.trail import Audit
from shared.authority import Authority
from shared.metrics import SILENT, Metrics
from shared.middleware.authentication import Authentication
from shared.middleware.caches import Uncached
from shared.middleware.compression import Compressed
from shared.middleware.context import Context
from shared.middleware.cors import Cors, OriginPolicy
from shared.middleware.edge import Edge
from shared.middleware.problems import Problems
from shared.middleware.refusals import Refused
from shared.spans import UNTOLD, Spans


def stack(
    app: ASGIApp,
    authority: Authority,
    audit: Audit,
    metrics: Metrics = SILENT,
    spans: Spans = UNTOLD,
    *,
    edge_digest: str = "",
) -> ASGIApp:
    """The app behind all middleware, the outermost first."""
    origins = authority.tenants
    policed = OriginPolicy(Compressed(app), origins)
    guarded = Authentication(Refused(policed, Refusals(audit)), authority)
    told = Uncached(Cors(Problems(guarded, metrics), origins))
    return Edge(Context(told, spans), edge_digest)
