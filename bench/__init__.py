"""Measured comparisons: every row of the table is taken in one run, beside a floor or a peer.

`python -m bench [section …]` prints the table. A section is a file with `measure(bench)`:

    relay      what the log adds between the model and the client
    cpu        CPU seconds and memory of one answer
    cold       how long a process takes until it asks for its first event
    cost       what DynamoDB and Lambda charge
    limits     what quotas and the audit add to that, and what a refusal costs
    followers  many readers of one stream

The rest is what they share: `parts` starts the processes, `serve` is one of them, `floor` the
relay without a log, `bare` the log without what surrounds it, `model` stamps its deltas, `client`
reads answers and notes when each part came, `runtime_api` gives a function its events, `counting`
counts what a store is asked, `package` makes the folders that a function runs from, and `rows`
prints.
"""
