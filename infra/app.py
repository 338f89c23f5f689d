"""The CDK app: one stack, in the account and region of whoever deploys it."""

import sys

from aws_cdk import App, CfnOutput, Stack

from infra.compute import Compute
from infra.config import Config, ContextError
from infra.data import tables
from infra.edge import Edge
from infra.observability import Watched, observe


def build(app: App) -> Stack:
    """Put the stack that the app's context describes into the app."""
    config = Config.from_context(app.node.get_all_context())
    stack = Stack(
        app, config.stack_name, description="Sluice: AI answers that stream, resume and are polled"
    )
    made = tables(stack, config)
    compute = Compute(stack, config, made)
    edge = None
    if compute.edge_secret:
        edge = Edge(
            stack,
            config,
            compute.edge_secret,
            stream_url=compute.stream_url,
            api_url=compute.api_url,
        )
    observe(
        stack,
        config,
        Watched(
            functions={
                "stream": compute.stream,
                "api": compute.api,
                "produce": compute.produce,
                "sweep": compute.sweep,
            },
            tables=made,
            failures=compute.failures,
            edge=edge.distribution if edge else None,
        ),
    )
    for name, table in made.items():
        CfnOutput(stack, f"{name.title()}TableName", value=table.table_name)
    return stack


def main() -> None:
    app = App()
    try:
        build(app)
    except ContextError as wrong:
        sys.exit(f"cdk.json or -c: {wrong}")
    app.synth()


if __name__ == "__main__":
    main()
