"""Where tasks go, what they are told, and how they are listed, as boto3 sees it."""

import io

from common import CLUSTER, FAMILY, WAIT, client, define, error, run, stopped

ecs = client("ecs")
s3 = client("s3")

(instance,) = [arn for page in ecs.get_paginator("list_container_instances").paginate(cluster=CLUSTER) for arn in page["containerInstanceArns"]]
ecs.put_attributes(cluster=CLUSTER, attributes=[{"name": "stack", "value": "blue", "targetId": instance}])
pages = ecs.get_paginator("list_attributes").paginate(cluster=CLUSTER, targetType="container-instance", PaginationConfig={"PageSize": 2})
assert ("stack", "blue") in [(a["name"], a.get("value")) for page in pages for a in page["attributes"]]

# Overrides, with an environment file out of S3.
bucket = ("boto-" + FAMILY.lower())[:63].strip("-")
s3.create_bucket(Bucket=bucket)
s3.upload_fileobj(io.BytesIO(b"CODE=41\n"), bucket, "task.env")
definition = define(ecs, ["env"])
(arn,) = run(
    ecs,
    definition,
    placementConstraints=[{"type": "memberOf", "expression": "attribute:stack == blue"}],
    placementStrategy=[{"type": "random"}],
    overrides={
        "containerOverrides": [
            {
                "name": "app",
                "command": ["exit", "41"],
                "environment": [{"name": "A", "value": "b"}],
                "environmentFiles": [{"type": "s3", "value": "arn:aws:s3:::%s/task.env" % bucket}],
                "memory": 96,
                "cpu": 64,
            }
        ]
    },
)
(task,) = stopped(ecs, [arn])
assert task["containers"][0]["exitCode"] == 41, task
override = task["overrides"]["containerOverrides"][0]
assert override["memory"] == 96 and override["environmentFiles"][0]["type"] == "s3", override
assert task["containers"][0]["memory"] == "96" and task["containers"][0]["cpu"] == "64", task["containers"]
s3.delete_object(Bucket=bucket, Key="task.env")
s3.delete_bucket(Bucket=bucket)

out = ecs.run_task(cluster=CLUSTER, taskDefinition=definition, placementConstraints=[{"type": "memberOf", "expression": "attribute:stack == red"}])
assert not out["tasks"] and out["failures"][0]["reason"] == "MemberOf placement constraint unsatisfied.", out

# Ten at once, a page at a time, and the waiters.
waiting = define(ecs, ["wait"], container={"memory": 16})
ten = {"count": 10, "group": "night", "startedBy": "boto3", "referenceId": "order-17"}
if "clientToken" in ecs.meta.service_model.operation_model("RunTask").input_shape.members:  # Debian's boto3 is older
    ten["clientToken"] = FAMILY[-60:]
arns = run(ecs, waiting, **ten)
if "clientToken" in ten:
    assert sorted(run(ecs, waiting, **ten)) == sorted(arns)
paginator = ecs.get_paginator("list_tasks")
pages = list(paginator.paginate(cluster=CLUSTER, startedBy="boto3", PaginationConfig={"PageSize": 3}))
assert [len(page["taskArns"]) for page in pages] == [3, 3, 3, 1], pages
assert sorted(arn for page in pages for arn in page["taskArns"]) == sorted(arns)
first = paginator.paginate(cluster=CLUSTER, startedBy="boto3", PaginationConfig={"MaxItems": 4}).build_full_result()
rest = paginator.paginate(cluster=CLUSTER, startedBy="boto3", PaginationConfig={"StartingToken": first["NextToken"]}).build_full_result()
assert len(first["taskArns"]) == 4 and sorted(first["taskArns"] + rest["taskArns"]) == sorted(arns)
ecs.get_waiter("tasks_running").wait(cluster=CLUSTER, tasks=arns, WaiterConfig=WAIT)
seen = ecs.describe_container_instances(cluster=CLUSTER, containerInstances=[instance])["containerInstances"][0]
assert seen["runningTasksCount"] == 10 and seen["status"] == "ACTIVE", seen

# Draining leaves them alone, deregistering by force does not.
out = ecs.update_container_instances_state(cluster=CLUSTER, containerInstances=[instance], status="DRAINING")
assert out["containerInstances"][0]["status"] == "DRAINING", out
assert all(t["lastStatus"] == "RUNNING" for t in ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"])
assert error(ecs.deregister_container_instance, cluster=CLUSTER, containerInstance=instance) == "InvalidParameterException"
ecs.deregister_container_instance(cluster=CLUSTER, containerInstance=instance, force=True)
for task in stopped(ecs, arns):
    assert task["stoppedReason"] == "Container instance deregistration forced by user", task
try:
    ecs.get_waiter("tasks_running").wait(cluster=CLUSTER, tasks=arns[:1], WaiterConfig=WAIT)
    raise SystemExit("the waiter took a stopped task for a running one")
except Exception as e:
    assert type(e).__name__ == "WaiterError", e
(again,) = run(ecs, waiting)
assert ecs.describe_tasks(cluster=CLUSTER, tasks=[again])["tasks"][0]["containerInstanceArn"] != instance
ecs.stop_task(cluster=CLUSTER, task=again)

# Tags and settings.
ecs.tag_resource(resourceArn=waiting, tags=[{"key": "team", "value": "harbour"}])
assert ecs.list_tags_for_resource(resourceArn=waiting)["tags"] == [{"key": "team", "value": "harbour"}]
names = [s["name"] for page in ecs.get_paginator("list_account_settings").paginate(effectiveSettings=True) for s in page["settings"]]
assert "containerInsights" in names and "taskLongArnFormat" in names, names

assert error(ecs.put_attributes, cluster=CLUSTER, attributes=[{"name": "stack", "targetId": instance}]) == "TargetNotFoundException"
assert error(ecs.run_task, cluster=CLUSTER, taskDefinition=waiting, count=11) == "InvalidParameterException"
assert error(ecs.put_account_setting, name="taskLongArnFormat", value="maybe") == "InvalidParameterException"
assert error(s3.get_object, Bucket=bucket, Key="x") == "NoSuchBucket"
