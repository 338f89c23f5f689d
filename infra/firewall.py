"""A firewall before the edge, for what no key has to do with: floods, scanners, known exploits."""

from aws_cdk import Stack
from aws_cdk import aws_wafv2 as wafv2

from infra.config import Config

# AWS's own groups. SQL injection is not among them: there is no SQL, and prompts are full of it.
GROUPS = {
    "AWSManagedRulesAmazonIpReputationList": (),
    # A prompt may be longer than 8 KB, and may be about HTML, a path, an address or an exploit.
    # Such rules count, so that one sees what they would have refused.
    "AWSManagedRulesCommonRuleSet": (
        "SizeRestrictions_BODY",
        "CrossSiteScripting_BODY",
        "GenericLFI_BODY",
        "GenericRFI_BODY",
        "EC2MetaDataSSRF_BODY",
        # Clients of one's own often send none.
        "NoUserAgent_HEADER",
    ),
    "AWSManagedRulesKnownBadInputsRuleSet": (
        "JavaDeserializationRCE_BODY",
        "Log4JRCE_BODY",
        "ReactJSRCE_BODY",
    ),
}
WINDOW_S = 300


def web_acl(stack: Stack, config: Config) -> str | None:
    """The ARN of the web ACL that the context names, or of one that is made here."""
    if config.firewall == "none":
        return None
    if config.firewall != "managed":
        return config.firewall
    made = wafv2.CfnWebACL(
        stack,
        "Firewall",
        scope="CLOUDFRONT",
        default_action=wafv2.CfnWebACL.DefaultActionProperty(allow={}),
        visibility_config=_seen("Firewall"),
        rules=[
            _rate(config.firewall_requests),
            *(
                _group(priority, name, counted)
                for priority, (name, counted) in enumerate(GROUPS.items(), start=1)
            ),
        ],
    )
    return made.attr_arn


def _rate(requests: int) -> wafv2.CfnWebACL.RuleProperty:
    return wafv2.CfnWebACL.RuleProperty(
        name="RequestsOfAnAddress",
        priority=0,
        action=wafv2.CfnWebACL.RuleActionProperty(block={}),
        statement=wafv2.CfnWebACL.StatementProperty(
            rate_based_statement=wafv2.CfnWebACL.RateBasedStatementProperty(
                aggregate_key_type="IP", limit=requests, evaluation_window_sec=WINDOW_S
            )
        ),
        visibility_config=_seen("RequestsOfAnAddress"),
    )


def _group(priority: int, name: str, counted: tuple[str, ...]) -> wafv2.CfnWebACL.RuleProperty:
    count = wafv2.CfnWebACL.RuleActionProperty(count={})
    return wafv2.CfnWebACL.RuleProperty(
        name=name,
        priority=priority,
        override_action=wafv2.CfnWebACL.OverrideActionProperty(none={}),
        statement=wafv2.CfnWebACL.StatementProperty(
            managed_rule_group_statement=wafv2.CfnWebACL.ManagedRuleGroupStatementProperty(
                vendor_name="AWS",
                name=name,
                rule_action_overrides=[
                    wafv2.CfnWebACL.RuleActionOverrideProperty(name=rule, action_to_use=count)
                    for rule in counted
                ],
            )
        ),
        visibility_config=_seen(name),
    )


def _seen(name: str) -> wafv2.CfnWebACL.VisibilityConfigProperty:
    return wafv2.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True,
        metric_name=name,
        # A sample is a request as it came, a ticket in its address included.
        sampled_requests_enabled=False,
    )
