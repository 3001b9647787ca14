package compose_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/compose"
	"github.com/berthhq/berth/internal/ecs/taskdef"
)

func load(t testing.TB, yaml string) (*types.Project, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return compose.Load(context.Background(), []string{file}, cli.WithName("shop"), cli.WithEnv(nil))
}

const shop = `
services:
  web:
    image: shop/web:1
    command: ["serve", "--port", "80"]
    ports: ["8080:80", "9090"]
    environment: {MODE: production, DB: db}
    depends_on:
      db: {condition: service_healthy}
      migrate: {condition: service_completed_successfully}
    deploy:
      replicas: 3
      resources: {limits: {cpus: "0.5", memory: 256M}, reservations: {memory: 64M}}
      placement: {constraints: ["node.labels.disk == ssd"]}
      update_config: {failure_action: rollback, order: start-first}
    restart: on-failure
    stop_grace_period: 20s
    cap_drop: [ALL]
    cap_add: [CAP_NET_BIND_SERVICE]
    read_only: true
    tmpfs: ["/tmp:size=16m,noexec"]
    volumes: ["uploads:/uploads", "./conf:/conf:ro", "/cache"]
    ulimits: {nofile: {soft: 1000, hard: 2000}}
  db:
    image: shop/db:1
    user: "70"
    shm_size: 128m
    volumes: ["data:/var/lib/db"]
    healthcheck: {test: ["CMD", "ready"], interval: 10s, timeout: 3s, retries: 4, start_period: 30s}
  migrate:
    image: shop/web:1
    entrypoint: []
    command: ["migrate"]
    depends_on: {db: {condition: service_healthy}}
  built:
    build: .
    profiles: [tools]
volumes: {uploads: {}, data: {}}
`

func convert(t *testing.T, yaml string, o compose.Options) compose.Result {
	t.Helper()
	p, err := load(t, yaml)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	r, err := compose.Convert(p, o)
	if err != nil {
		t.Fatalf("convert: %v", err)
	}
	for _, d := range r.Definitions {
		if _, err := taskdef.Register(&d); err != nil {
			raw, _ := json.MarshalIndent(d, "", " ")
			t.Errorf("ECS refuses what was made of it: %v\n%s", err, raw)
		}
	}
	return r
}

func TestTogether(t *testing.T) {
	t.Parallel()
	r := convert(t, shop, compose.Options{Together: true})
	if len(r.Definitions) != 1 || len(r.Services) != 0 {
		t.Fatalf("%d definitions, %d services", len(r.Definitions), len(r.Services))
	}
	d := r.Definitions[0]
	var names []string
	for _, c := range d.ContainerDefinitions {
		names = append(names, *c.Name)
	}
	if !slices.Equal(names, []string{"db", "migrate", "web"}) {
		t.Errorf("the containers are %q", names)
	}
	db, migrate, web := d.ContainerDefinitions[0], d.ContainerDefinitions[1], d.ContainerDefinitions[2]
	if *migrate.Essential || !*web.Essential {
		t.Error("what is waited for to end must not be essential, the rest must")
	}
	if !slices.Equal(migrate.EntryPoint, []string{""}) {
		t.Errorf("a cleared entry point is %q", migrate.EntryPoint)
	}
	conditions := map[string]ecs.ContainerCondition{}
	for _, on := range web.DependsOn {
		conditions[*on.ContainerName] = on.Condition
	}
	if conditions["db"] != ecs.ContainerConditionHealthy || conditions["migrate"] != ecs.ContainerConditionSuccess {
		t.Errorf("web depends on %v", conditions)
	}
	if !slices.Equal(web.Links, []string{"db", "migrate"}) {
		t.Errorf("web is linked to %q", web.Links)
	}
	if h := db.HealthCheck; h == nil || *h.Interval != 10 || *h.Timeout != 3 || *h.Retries != 4 || *h.StartPeriod != 30 || !slices.Equal(h.Command, []string{"CMD", "ready"}) {
		t.Errorf("db's health check is %+v", h)
	}
	if m := web.PortMappings; len(m) != 2 || *m[0].HostPort != 8080 || *m[0].ContainerPort != 80 || m[1].HostPort != nil {
		t.Errorf("web's ports are %+v", m)
	}
	if *web.Memory != 256 || *web.MemoryReservation != 64 || *web.Cpu != 512 || *web.StopTimeout != 20 {
		t.Errorf("web may use %d/%d MiB, %d units, %d s", *web.Memory, *web.MemoryReservation, *web.Cpu, *web.StopTimeout)
	}
	if p := web.RestartPolicy; p == nil || !*p.Enabled || !slices.Equal(p.IgnoredExitCodes, []int32{0}) {
		t.Errorf("web's restart policy is %+v", p)
	}
	if lp := web.LinuxParameters; !slices.Equal(lp.Capabilities.Add, []string{"NET_BIND_SERVICE"}) || *lp.Tmpfs[0].Size != 16 || !slices.Equal(lp.Tmpfs[0].MountOptions, []string{"noexec"}) {
		t.Errorf("web's linuxParameters are %+v", lp)
	}
	if *db.LinuxParameters.SharedMemorySize != 128 {
		t.Error("db's /dev/shm")
	}
	kinds := map[string]string{}
	for _, v := range d.Volumes {
		switch {
		case v.DockerVolumeConfiguration != nil:
			kinds[*v.Name] = string(v.DockerVolumeConfiguration.Scope)
		case v.Host != nil && v.Host.SourcePath != nil:
			kinds["bind"] = filepath.Base(*v.Host.SourcePath)
		default:
			kinds["anonymous"] = *v.Name
		}
	}
	if kinds["shop_uploads"] != "shared" || kinds["shop_data"] != "shared" || kinds["bind"] != "conf" || kinds["anonymous"] == "" {
		t.Errorf("the volumes are %v", kinds)
	}
}

func TestServices(t *testing.T) {
	t.Parallel()
	r := convert(t, shop, compose.Options{Cluster: "prod"})
	if len(r.Definitions) != 3 || len(r.Services) != 3 {
		t.Fatalf("%d definitions, %d services", len(r.Definitions), len(r.Services))
	}
	web := r.Services[2]
	if *web.ServiceName != "web" || *web.TaskDefinition != "shop-web" || *web.DesiredCount != 3 || *web.Cluster != "prod" {
		t.Errorf("the service is %s of %s, %d times in %s", *web.ServiceName, *web.TaskDefinition, *web.DesiredCount, *web.Cluster)
	}
	if b := web.DeploymentConfiguration.DeploymentCircuitBreaker; b == nil || !*b.Enable || !*b.Rollback {
		t.Errorf("its circuit breaker is %+v", b)
	}
	if e := web.PlacementConstraints; len(e) != 1 || *e[0].Expression != "attribute:disk == ssd" {
		t.Errorf("its constraints are %+v", e)
	}
	if sc := web.ServiceConnectConfiguration; sc == nil || *sc.Services[0].ClientAliases[0].DnsName != "web" {
		t.Errorf("others find it by %+v", sc)
	}
	if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.HasPrefix(n, "web: depends_on: db") }) {
		t.Errorf("nothing is said of the dependency: %q", r.Notes)
	}
}

// Nothing is dropped without a word.
func TestNotes(t *testing.T) {
	t.Parallel()
	r := convert(t, `
services:
  a:
    image: x
    stop_signal: SIGINT
    mac_address: "02:42:ac:11:65:43"
    oom_score_adj: 5
    secrets: [s]
    environment: [FROM_SHELL]
    ports: ["127.0.0.1:8000:80"]
    userns_mode: host
    extra_hosts: ["gw:host-gateway"]
    healthcheck: {test: ["CMD", "x"], interval: 1s}
secrets: {s: {environment: S}}
`, compose.Options{})
	for _, want := range []string{
		"a: stop_signal:", "a: mac_address:", "a: oom_score_adj:", "a: secrets:", "a: environment: FROM_SHELL", "a: ports: 80 is bound",
		"a: userns_mode:", "a: extra_hosts: host-gateway", "a: healthcheck.interval:", "a: memory: none",
	} {
		if !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.HasPrefix(n, want) }) {
			t.Errorf("no note %q among\n%s", want, strings.Join(r.Notes, "\n"))
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	var many strings.Builder
	many.WriteString("services:\n")
	for _, n := range "abcdefghijk" {
		many.WriteString("  " + string(n) + ": {image: x}\n")
	}
	p, err := load(t, many.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := compose.Convert(p, compose.Options{Together: true}); err == nil {
		t.Error("eleven containers in a task")
	}
	if _, err := compose.Convert(&types.Project{Name: "x"}, compose.Options{}); err == nil {
		t.Error("a project without services")
	}
}

// Whatever compose-go accepts is converted, or refused with an error, and never panics.
func FuzzConvert(f *testing.F) {
	f.Add(shop)
	f.Add("services: {a: {image: x, pid: host, ipc: shareable, gpus: all, network_mode: host, platform: linux/arm64}}")
	f.Add("services: {a: {image: x, tmpfs: ['/t:size=banana'], volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1g}}], deploy: {mode: global}}}")
	f.Fuzz(func(t *testing.T, yaml string) {
		p, err := load(t, yaml)
		if err != nil {
			return
		}
		for _, together := range []bool{false, true} {
			r, err := compose.Convert(p, compose.Options{Together: together})
			if err != nil {
				continue
			}
			for _, d := range r.Definitions {
				if api.Value(d.Family) == "" || len(d.ContainerDefinitions) == 0 {
					t.Errorf("an empty definition of %q", yaml)
				}
			}
		}
	})
}
