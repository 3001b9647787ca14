"""What the boto3 scripts share: clients of the Berth that the environment names."""

import os

import boto3
from botocore.config import Config

ENDPOINT = os.environ["BERTH_ENDPOINT"]
CLUSTER = os.environ["BERTH_CLUSTER"]
IMAGE = os.environ["BERTH_IMAGE"]
FAMILY = os.environ["BERTH_FAMILY"]

WAIT = {"Delay": 1, "MaxAttempts": 90}


def client(service, **keys):
    return boto3.client(
        service,
        endpoint_url=ENDPOINT,
        config=Config(retries={"max_attempts": 1}, proxies={}),
        **keys,
    )


def define(ecs, command, **changes):
    """Registers a definition of one container and returns its ARN."""
    container = {"name": "app", "image": IMAGE, "memory": 64, "command": command, "stopTimeout": 3}
    container.update(changes.pop("container", {}))
    definition = {"family": FAMILY, "networkMode": "none", "containerDefinitions": [container]}
    definition.update(changes)
    return ecs.register_task_definition(**definition)["taskDefinition"]["taskDefinitionArn"]


def run(ecs, definition, **more):
    out = ecs.run_task(cluster=CLUSTER, taskDefinition=definition, **more)
    assert not out["failures"], out["failures"]
    return [task["taskArn"] for task in out["tasks"]]


def stopped(ecs, arns):
    ecs.get_waiter("tasks_stopped").wait(cluster=CLUSTER, tasks=arns, WaiterConfig=WAIT)
    return ecs.describe_tasks(cluster=CLUSTER, tasks=arns)["tasks"]


def error(call, **arguments):
    """Calls, expecting an error, and returns its code."""
    try:
        out = call(**arguments)
    except Exception as e:
        return getattr(e, "response", {}).get("Error", {}).get("Code", repr(e))
    raise AssertionError("no error but %r" % out)
