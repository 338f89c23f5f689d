"""What every request passes through, whichever function or dialect it is for: the order is here.

    context         request id, log context, one line a request
    → problems      errors to problem details
    → authentication

Each is pure ASGI and a file of its own.
"""

from starlette.types import ASGIApp

from shared.middleware.authentication import Authentication
from shared.middleware.context import Context
from shared.middleware.problems import Problems
from shared.tenants import Tenants


def stack(app: ASGIApp, tenants: Tenants) -> ASGIApp:
    """The app behind all middleware, the outermost first."""
    return Context(Problems(Authentication(app, tenants)))
