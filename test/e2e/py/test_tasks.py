"""A task's life as boto3 sees it."""

import datetime

from common import CLUSTER, WAIT, client, define, run, stopped

ecs = client("ecs")

definition = define(ecs, ["wait"])
arns = run(ecs, definition, count=2, startedBy="boto3")
ecs.get_waiter("tasks_running").wait(cluster=CLUSTER, tasks=arns, WaiterConfig=WAIT)
for task in ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"]:
    assert task["lastStatus"] == "RUNNING", task
    assert isinstance(task["startedAt"], datetime.datetime), task
    assert task["taskDefinitionArn"] == definition, task
    assert task["launchType"] == "EC2", task
assert sorted(ecs.list_tasks(cluster=CLUSTER, startedBy="boto3")["taskArns"]) == sorted(arns)
pages = ecs.get_paginator("list_tasks").paginate(cluster=CLUSTER, PaginationConfig={"PageSize": 1})
assert sorted(arn for page in pages for arn in page["taskArns"]) == sorted(arns)
for arn in arns:
    ecs.stop_task(cluster=CLUSTER, task=arn, reason="boto3 says so")
for task in stopped(ecs, arns):
    assert task["stopCode"] == "UserInitiated" and task["stoppedReason"] == "boto3 says so", task

(task,) = stopped(ecs, run(ecs, define(ecs, ["exit", "42"])))
assert task["containers"][0]["exitCode"] == 42, task
assert task["stopCode"] == "EssentialContainerExited", task

(task,) = stopped(ecs, run(ecs, define(ecs, ["eat", "256"], container={"memory": 32})))
assert task["containers"][0]["exitCode"] == 137, task
assert task["containers"][0]["reason"].startswith("OutOfMemoryError"), task

out = ecs.run_task(cluster=CLUSTER, taskDefinition=define(ecs, ["wait"], container={"memory": 100 << 20}))
assert out["tasks"] == [] and out["failures"][0]["reason"] == "RESOURCE:MEMORY", out
