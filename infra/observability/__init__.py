"""What whoever operates a stack looks at: a dashboard, alarms, and questions to the logs."""

from aws_cdk import Stack
from aws_cdk import aws_cloudfront as cloudfront

from infra.config import Config
from infra.observability.alarms import add_alarms, alarms
from infra.observability.dashboard import add_dashboard
from infra.observability.figures import Figures
from infra.observability.notices import topic
from infra.observability.queries import rank_tenants, save_queries
from infra.observability.watched import Watched

__all__ = ["Watched", "observe"]


def observe(stack: Stack, config: Config, watched: Watched) -> None:
    """Add to the stack what the context's `observability` asks for."""
    if config.observability == "none":
        return
    figures = Figures(stack.stack_name)
    if config.observability == "dashboard":
        add_dashboard(stack, figures, watched)
        return
    if watched.edge:
        _measure_origins(stack, watched.edge)
    told = topic(stack, config.alarm_email)
    made = add_alarms(stack, alarms(figures, watched), told)
    add_dashboard(stack, figures, watched, made)
    groups = [function.log_group for function in watched.functions.values()]
    save_queries(stack, groups)
    rank_tenants(stack, groups)


def _measure_origins(stack: Stack, edge: cloudfront.Distribution) -> None:
    """Have CloudFront tell how long its origins take; it is billed for each distribution."""
    on = cloudfront.CfnMonitoringSubscription.RealtimeMetricsSubscriptionConfigProperty(
        realtime_metrics_subscription_status="Enabled"
    )
    cloudfront.CfnMonitoringSubscription(
        stack,
        "EdgeMetrics",
        distribution_id=edge.distribution_id,
        monitoring_subscription=cloudfront.CfnMonitoringSubscription.MonitoringSubscriptionProperty(
            realtime_metrics_subscription_config=on
        ),
    )
