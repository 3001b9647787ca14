"""Clusters, task definitions and errors as boto3 sees them."""

from common import CLUSTER, FAMILY, IMAGE, client, define, error

ecs = client("ecs")

cluster = ecs.describe_clusters(clusters=[CLUSTER])["clusters"][0]
assert cluster["clusterName"] == CLUSTER and cluster["status"] == "ACTIVE", cluster
assert cluster["clusterArn"] in [arn for page in ecs.get_paginator("list_clusters").paginate() for arn in page["clusterArns"]]
assert ecs.describe_clusters(clusters=["nowhere"])["failures"][0]["reason"] == "MISSING"

first = define(ecs, ["wait"], tags=[{"key": "team", "value": "harbour"}])
second = define(ecs, ["wait"], networkMode="awsvpc", cpu="256", memory="512")
assert first.endswith(":1") and second.endswith(":2"), (first, second)
seen = ecs.describe_task_definition(taskDefinition=first, include=["TAGS"])
assert seen["tags"] == [{"key": "team", "value": "harbour"}], seen
echo = seen["taskDefinition"]["containerDefinitions"][0]
assert echo["cpu"] == 0 and echo["essential"] is True, echo
assert echo["environment"] == [] and echo["mountPoints"] == [] and echo["volumesFrom"] == [], echo

# What Terraform and ecspresso do: register again what was described, without the output's own fields.
again = ecs.describe_task_definition(taskDefinition=second)["taskDefinition"]
for field in ["taskDefinitionArn", "revision", "status", "requiresAttributes", "compatibilities", "registeredAt", "registeredBy"]:
    again.pop(field, None)
third = ecs.register_task_definition(**again)["taskDefinition"]
assert third["revision"] == 3 and third["containerDefinitions"] == again["containerDefinitions"], third

ecs.deregister_task_definition(taskDefinition=first)
assert first in ecs.list_task_definitions(familyPrefix=FAMILY, status="INACTIVE")["taskDefinitionArns"]

assert error(ecs.describe_task_definition, taskDefinition="nothing") == "ClientException"
assert error(ecs.list_tasks, cluster="nowhere") == "ClusterNotFoundException"
assert error(ecs.run_task, cluster=CLUSTER, taskDefinition=first) == "ClientException"
assert error(ecs.register_task_definition, family=FAMILY, containerDefinitions=[]) == "ClientException"
container = {"name": "app", "image": IMAGE, "memory": 64, "essential": False}
assert error(ecs.register_task_definition, family=FAMILY, containerDefinitions=[container]) == "ClientException"

sts = client("sts")
assert sts.get_caller_identity()["Account"] == "000000000000"
key = sts.assume_role(RoleArn="arn:aws:iam::000000000000:role/deploy", RoleSessionName="boto3")["Credentials"]
session = dict(
    aws_access_key_id=key["AccessKeyId"],
    aws_secret_access_key=key["SecretAccessKey"],
    aws_session_token=key["SessionToken"],
)
assert client("sts", **session).get_caller_identity()["Arn"].endswith(":assumed-role/deploy/boto3")
assert cluster["clusterArn"] in client("ecs", **session).list_clusters()["clusterArns"]
assert error(client("ecs", **dict(session, aws_secret_access_key="wrong")).list_clusters) == "InvalidSignatureException"
