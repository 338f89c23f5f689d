"""Questions to the logs, saved in Logs Insights; and who asks most, in Contributor Insights.

A figure of a metric's line is a list, of which `.0` is the value. Lambda's own line of an exception
that nobody caught has `log_level`, `errorType` and `requestId` where ours have other names.
"""

from collections.abc import Sequence

from aws_cdk import Stack
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_logs as logs

QUERIES = {
    "An answer by its trace or stream": """
fields @timestamp, @logStream, coalesce(message, line) as what, stream, tenant, status, duration_ms,
       model, error, problem, epoch, request_id
| filter trace_id = "TRACE" or stream = "STREAM"
| sort @timestamp
| limit 1000
""",
    "Slowest first tokens": """
filter line = "production"
| fields @timestamp, tenant, stream, model, variant, TimeToFirstToken.0 as first_token_ms,
         TimeToFirstChunk.0 as first_chunk_ms, GapP99.0 as gap_p99_ms
| sort first_token_ms desc
| limit 50
""",
    "Refusals by tenant": """
filter line = "refusal"
| stats sum(Refusals.0) as refused, latest(@timestamp) as last by tenant, `limit`
| sort refused desc
| limit 100
""",
    "Failed answers by problem": """
filter line = "failure"
| stats sum(Failures.0) as failed, count_distinct(tenant) as tenants, latest(stream) as example,
        latest(@timestamp) as last by problem, model
| sort failed desc
""",
    "Errors by type": """
fields coalesce(level, log_level) as severity, coalesce(request_id, requestId) as request
| filter severity in ["ERROR", "WARNING", "CRITICAL"]
| stats count(*) as lines, latest(@timestamp) as last, latest(request) as example
        by severity, message, coalesce(error, errorType, code, type) as kind, at
| sort lines desc
| limit 100
""",
    "Invocations that died": """
filter type = "platform.report" and record.status != "success"
| stats count(*) as invocations, latest(record.requestId) as example, latest(@timestamp) as last,
        max(record.metrics.maxMemoryUsedMB) as memory_mb
        by @log, record.status, record.errorType
| sort invocations desc
""",
    "Tenants by answers and tokens": """
filter line = "answer"
| stats sum(AnswersCompleted.0) as completed, sum(AnswersCancelled.0) as cancelled,
        sum(AnswersFailed.0) as failed, sum(InputTokens.0) as input_tokens,
        sum(OutputTokens.0) as output_tokens, pct(AnswerTime.0, 95) as p95_ms by tenant
| sort output_tokens desc
| limit 100
""",
}


def save_queries(stack: Stack, groups: Sequence[logs.ILogGroup]) -> None:
    """All of them, in a folder of the stack's name."""
    for name, query in QUERIES.items():
        logs.CfnQueryDefinition(
            stack,
            "".join(word.title() for word in name.split()) + "Query",
            name=f"{stack.stack_name}/{name}",
            query_string=query.strip(),
            log_group_names=[group.log_group_name for group in groups],
        )


def rank_tenants(stack: Stack, groups: Sequence[logs.ILogGroup]) -> None:
    """Count each tenant's answers as they end, without a metric for each."""
    rule = {
        "Schema": {"Name": "CloudWatchLogRule", "Version": 1},
        "LogFormat": "JSON",
        "LogGroupNames": [group.log_group_name for group in groups],
        "Contribution": {
            "Keys": ["$.tenant"],
            "Filters": [{"Match": "$.line", "In": ["answer"]}],
        },
        "AggregateOn": "Count",
    }
    cloudwatch.CfnInsightRule(
        stack,
        "TenantsRule",
        rule_name=f"{stack.stack_name}-answers-by-tenant",
        rule_state="ENABLED",
        rule_body=stack.to_json_string(rule),
    )
