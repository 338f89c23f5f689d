"""What AWS charges, in USD, before any free tier and discount.

Source: the AWS price list of us-east-1, on-demand, as it was on `AS_OF`. Prices change rarely, and
regions differ by up to a third: who needs the cent looks them up.
"""

AS_OF = "2026-11"

#: DynamoDB on demand: a write unit (1 KB), a read unit (4 KB, consistent), a GB for a month.
WRU = 0.625 / 1e6
RRU = 0.125 / 1e6
STORED_GB_MONTH = 0.25
#: Lambda on arm64: a GB of memory for a second, a request, a GB streamed beyond 6 MB a response.
LAMBDA_GB_S = 0.0000133334
LAMBDA_REQUEST = 0.20 / 1e6
#: CloudFront: an HTTPS request, and a GB to the internet.
EDGE_REQUEST = 1.00 / 1e6
EDGE_GB = 0.085
#: CloudWatch Logs: a GB taken in.
LOGS_GB = 0.50
#: For a month: a metric of our own, each that an alarm looks at, a dashboard, a rule of
#: Contributor Insights, a key of KMS, a secret.
METRIC_MONTH = 0.30
ALARM_METRIC_MONTH = 0.10
DASHBOARD_MONTH = 3.00
RULE_MONTH = 0.50
KEY_MONTH = 1.00
SECRET_MONTH = 0.40
