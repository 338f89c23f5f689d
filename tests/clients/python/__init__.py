#: httpx leaves generators of its own to be collected where a response is not read to its end, and
#: Trio tells of it. Ours are closed.
THEIRS = r"ignore:Async generator 'http(x|core)\.:ResourceWarning"
