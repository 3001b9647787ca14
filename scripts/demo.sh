#!/bin/bash
# From a checkout to a task that answers over HTTP: `make demo`. Run it as often as you like.
set -euo pipefail
cd "$(dirname "$0")/.."

data=${BERTH_DATA_DIR:-/var/lib/berth}
listen=${BERTH_LISTEN:-127.0.0.1:4566}
log=${BERTH_LOG:-/var/log/berth.log}
berth=$PWD/bin/berth
flags=(--data-dir "$data" --listen "$listen")

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
# show runs a command and shows it, as you would type it.
show() {
	local arg line=
	for arg in "$@"; do
		arg=${arg#"$PWD"/}
		case $arg in *[!A-Za-z0-9_./:=,@+-]*) arg="'$arg'" ;; esac
		line+=" $arg"
	done
	printf '%s$%s%s\n' "$dim" "$line" "$plain"
	"$@"
}
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

root=()
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || fail 'Berth runs containers and needs root: run as root, or install sudo'
	root=(sudo)
fi

step 'Build'
scripts/install-deps.sh build demo
make --no-print-directory build
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o bin/hello ./examples/hello
CGO_ENABLED=0 go build -trimpath -buildvcs=false -o bin/mkimage ./examples/mkimage
echo "$("$berth" version), $(du -h --apparent-size "$berth" | cut -f1) in one file"

step 'Start Berth'
if curl -fsS -m 2 "http://$listen/_berth/health" >/dev/null 2>&1; then
	echo "already running at http://$listen"
else
	say=$(mktemp)
	"${root[@]}" touch "$log"
	# In a session of its own: it goes on when this script, and its terminal, end.
	"${root[@]}" setsid --fork bash -c 'exec "$0" up "${@:3}" >"$1" 2>>"$2" </dev/null' \
		"$berth" "$say" "$log" "${flags[@]}"
	for _ in $(seq 300); do
		grep -q '^ready' "$say" && break
		pgrep -f -- "$berth up" >/dev/null || { sleep 0.2; grep -q '^ready' "$say" || { tail -n 20 "$log" >&2; fail 'Berth did not start'; }; }
		sleep 0.1
	done
	grep '^ready' "$say" || { tail -n 20 "$log" >&2; fail "Berth is not ready; its log is $log"; }
	rm -f "$say"
fi
# The root key and the endpoint, for the AWS CLI.
eval "$("${root[@]}" "$berth" env "${flags[@]}" | grep '^export ')"
aws() { command aws --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }
export AWS_PAGER=

step 'An image, without a registry'
bin/mkimage -ref hello:1 -o bin/hello.tar bin/hello
show "${root[@]}" "$berth" image import "${flags[@]}" bin/hello.tar

step 'A cluster, a task definition, a task: through the ECS API'
show aws ecs create-cluster --cluster-name demo --query cluster.clusterArn --output text
show aws ecs register-task-definition --cli-input-json file://examples/hello/task.json \
	--query taskDefinition.taskDefinitionArn --output text
network='awsvpcConfiguration={subnets=[subnet-00000000000000000]}'
task=$(show aws ecs run-task --cluster demo --task-definition hello --network-configuration "$network" --query 'tasks[0].taskArn' --output text | tee /dev/stderr | tail -n 1)
case $task in arn:*) ;; *) fail "no task: $(aws ecs run-task --cluster demo --task-definition hello --network-configuration "$network" --query failures)" ;; esac
for _ in $(seq 300); do
	read -r state address < <(aws ecs describe-tasks --cluster demo --tasks "$task" --output text \
		--query 'tasks[0].[lastStatus,containers[0].networkInterfaces[0].privateIpv4Address]') || fail 'the task cannot be described'
	case $state in
	RUNNING) break ;;
	STOPPED) aws ecs describe-tasks --cluster demo --tasks "$task" --query 'tasks[0].[stopCode,stoppedReason,containers[].reason]'; fail 'the task stopped' ;;
	esac
done
[ "$state" = RUNNING ] || fail "the task is still $state"
show aws ecs describe-tasks --cluster demo --tasks "$task" --output table \
	--query 'tasks[0].{status:lastStatus,started:startedAt,cpu:cpu,memory:memory,image:containers[0].image,address:containers[0].networkInterfaces[0].privateIpv4Address}'

step 'It answers, at its own address'
show curl -fsS --retry 20 --retry-connrefused --retry-delay 1 --noproxy '*' "http://$address:8080/"

step 'What it wrote'
show "${root[@]}" "$berth" logs "${flags[@]}" "${task##*/}"

step 'Berth goes on running. Next:'
sudo_=${root[*]:+${root[*]} }
given=()
[ "$data" = /var/lib/berth ] || given+=(--data-dir "$data")
[ "$listen" = 127.0.0.1:4566 ] || given+=(--listen "$listen")
more=${given[*]:+ ${given[*]}}
cat <<NEXT
  eval "\$(${sudo_}bin/berth env$more)"              # the AWS CLI speaks to Berth, in this shell
  aws ecs list-tasks --cluster demo
  aws ecs run-task --cluster demo --task-definition hello --count 3 \\
    --network-configuration '$network'
  aws ecs stop-task --cluster demo --task ${task##*/}
  ${sudo_}bin/berth status$more
  ${sudo_}bin/berth logs$more -f ${task##*/}
  ${sudo_}bin/berth down$more                        # stop the tasks, keep the state
  ${sudo_}bin/berth reset --yes$more                 # remove everything Berth made on this host
NEXT
