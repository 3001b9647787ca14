"""CloudWatch Logs as boto3 sees it: paginators, tokens, rejections, queries, errors."""

import time

from common import FAMILY, client, error

logs = client("logs")
group = "/boto/" + FAMILY
now = int(time.time() * 1000)

logs.create_log_group(logGroupName=group, tags={"team": "blue"})
assert error(logs.create_log_group, logGroupName=group) == "ResourceAlreadyExistsException"
streams = ["s/%02d" % i for i in range(7)]
for name in streams:
    logs.create_log_stream(logGroupName=group, logStreamName=name)
pages = list(logs.get_paginator("describe_log_streams").paginate(logGroupName=group, PaginationConfig={"PageSize": 3}))
assert [len(p["logStreams"]) for p in pages] == [3, 3, 1], pages
assert [s["logStreamName"] for p in pages for s in p["logStreams"]] == streams

# 2,500 events in two streams, one message a megabyte short of the rest.
put = []
for i in range(2500):
    put.append({"timestamp": now - 3000 + i, "message": '{"n": %d, "level": "%s"}' % (i, "error" if i % 100 == 0 else "info")})
for part, name in ((put[:1250], "s/00"), (put[1250:], "s/01")):
    out = logs.put_log_events(logGroupName=group, logStreamName=name, logEvents=part)
    assert "rejectedLogEventsInfo" not in out, out

pages = list(logs.get_paginator("filter_log_events").paginate(logGroupName=group, PaginationConfig={"PageSize": 1000}))
assert [len(p["events"]) for p in pages] == [1000, 1000, 500], [len(p["events"]) for p in pages]
events = [e for p in pages for e in p["events"]]
assert [e["message"] for e in events] == [e["message"] for e in put]
assert len({e["eventId"] for e in events}) == 2500
out = logs.filter_log_events(logGroupName=group, filterPattern='{ $.level = "error" && $.n >= 2000 }')
assert [e["logStreamName"] for e in out["events"]] == ["s/01"] * 5, out

# From the head to the end: the token stays the same there.
seen, token = [], None
while True:
    more = {"nextToken": token} if token else {}
    out = logs.get_log_events(logGroupName=group, logStreamName="s/00", startFromHead=True, limit=500, **more)
    seen += out["events"]
    if out["nextForwardToken"] == token:
        break
    token = out["nextForwardToken"]
assert [e["message"] for e in seen] == [e["message"] for e in put[:1250]]
out = logs.get_log_events(logGroupName=group, logStreamName="s/00", limit=2)
assert [e["message"] for e in out["events"]] == [e["message"] for e in put[1248:1250]], out

# What is refused.
hour = 3600 * 1000
out = logs.put_log_events(logGroupName=group, logStreamName="s/02", logEvents=[{"timestamp": now - 15 * 24 * hour, "message": "old"}])
assert out["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1}, out
out = logs.put_log_events(
    logGroupName=group, logStreamName="s/02", logEvents=[{"timestamp": now, "message": "good"}, {"timestamp": now + 3 * hour, "message": "new"}]
)
assert out["rejectedLogEventsInfo"] == {"tooNewLogEventStartIndex": 1}, out
disorder = [{"timestamp": now, "message": "a"}, {"timestamp": now - 1, "message": "b"}]
assert error(logs.put_log_events, logGroupName=group, logStreamName="s/02", logEvents=disorder) == "InvalidParameterException"
assert error(logs.put_log_events, logGroupName=group, logStreamName="none", logEvents=disorder[:1]) == "ResourceNotFoundException"
large = [{"timestamp": now, "message": "x" * (1 << 20)}]
assert error(logs.put_log_events, logGroupName=group, logStreamName="s/02", logEvents=large) == "InvalidParameterException"
assert error(logs.put_retention_policy, logGroupName=group, retentionInDays=2) == "InvalidParameterException"
assert error(logs.put_subscription_filter, logGroupName=group, filterName="f", filterPattern="", destinationArn="arn:aws:x") == "UnsupportedOperationException"

# A query.
query = "filter level = 'error' | stats count(*) as n by bin(1h)"
query = logs.start_query(logGroupName=group, startTime=now // 1000 - 3600, endTime=now // 1000 + 60, queryString=query)["queryId"]
for _ in range(100):
    out = logs.get_query_results(queryId=query)
    if out["status"] not in ("Scheduled", "Running"):
        break
    time.sleep(0.1)
assert out["status"] == "Complete", out
assert sum(int(f["value"]) for row in out["results"] for f in row if f["field"] == "n") == 25, out
assert error(logs.start_query, logGroupName=group, startTime=0, endTime=1, queryString="nonsense") == "MalformedQueryException"

(arn,) = [g["logGroupArn"] if "logGroupArn" in g else g["arn"][:-2] for g in logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]]
assert logs.list_tags_log_group(logGroupName=group)["tags"] == {"team": "blue"}
logs.delete_log_stream(logGroupName=group, logStreamName="s/00")
assert error(logs.get_log_events, logGroupName=group, logStreamName="s/00") == "ResourceNotFoundException"
assert arn.endswith(":log-group:" + group), arn
logs.delete_log_group(logGroupName=group)
assert error(logs.filter_log_events, logGroupName=group) == "ResourceNotFoundException"
