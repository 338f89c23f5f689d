"""The dashboard. It reads top down: what users feel, what explains it, what it runs on."""

from collections.abc import Sequence

from aws_cdk import CfnOutput, Duration, Stack
from aws_cdk import aws_cloudwatch as cloudwatch

from infra.observability import machinery, users
from infra.observability.figures import Figures
from infra.observability.graphs import WIDTH, heading
from infra.observability.watched import Watched


def add_dashboard(
    stack: Stack, figures: Figures, watched: Watched, alarms: Sequence[cloudwatch.IAlarm] = ()
) -> None:
    """Make it, with the alarms on top where there are any."""
    # A dashboard's name is the account's, and not a region's.
    name = f"{stack.stack_name}-{stack.region}"
    made = cloudwatch.Dashboard(
        stack, "Dashboard", dashboard_name=name, default_interval=Duration.hours(3)
    )
    if alarms:
        made.add_widgets(*heading("Alarms", "What to do first: docs/runbooks, by an alarm's name."))
        made.add_widgets(cloudwatch.AlarmStatusWidget(alarms=alarms, width=WIDTH, height=3))
    for section in (
        users.felt(figures),
        users.refused(figures),
        users.kept(figures),
        machinery.functions(watched),
        machinery.tables(watched),
        machinery.behind(figures, watched),
        *([machinery.edge(watched.edge, origins=bool(alarms))] if watched.edge else []),
        machinery.bill(figures, watched),
    ):
        for row in section.drawn():
            made.add_widgets(*row)
    CfnOutput(stack, "DashboardName", value=name)
