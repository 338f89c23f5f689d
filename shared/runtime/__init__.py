"""ASGI on the Lambda Runtime API, with response streaming.

The managed Python runtimes buffer a response until its end; this small custom runtime does not.
`wrapper` starts it (`AWS_LAMBDA_EXEC_WRAPPER`), `__main__` composes it, `loop` takes one
invocation after the other, `events` makes an ASGI request of an event, `cycle` runs the app for
one invocation, `client` speaks to the Runtime API, `snapstart` runs the hooks of a snapshot, and
`report` says what went wrong. Only the app's factory is ours; the app knows nothing of Lambda.

There is no lifespan: Lambda says neither when an environment is last used nor when it ends, so
what has to be made once is made by the factory, or by the first request that needs it. And the
event loop stands still between two invocations: what an app still has to do, it awaits before it
returns.
"""
