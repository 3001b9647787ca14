package metadata

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/berthhq/berth/internal/agent"
)

type agentV1 struct {
	Cluster              string
	ContainerInstanceArn *string
	Version              string
}

type tasksV1 struct{ Tasks []taskV1 }

type taskV1 struct {
	Arn           string
	DesiredStatus string `json:"DesiredStatus,omitempty"`
	KnownStatus   string
	Family        string
	Version       string
	Containers    []containerV1
}

type containerV1 struct {
	DockerID     string `json:"DockerId"`
	DockerName   string
	Name         string
	Image        string
	ImageID      string
	CreatedAt    *time.Time `json:"CreatedAt,omitempty"`
	StartedAt    *time.Time `json:"StartedAt,omitempty"`
	Ports        []port     `json:"Ports,omitempty"`
	Networks     []network  `json:"Networks,omitempty"`
	Volumes      []volume   `json:"Volumes,omitempty"`
	RestartCount *int64     `json:"RestartCount,omitempty"`
}

// IntrospectionHandler answers the introspection API, to this host and the containers on it alone.
func (s *Server) IntrospectionHandler() http.Handler { return http.HandlerFunc(s.serveIntrospection) }

// license is what /license answers.
const license = "Berth is licensed under the Apache License, Version 2.0: https://www.apache.org/licenses/LICENSE-2.0\n"

func (s *Server) serveIntrospection(w http.ResponseWriter, r *http.Request) {
	source := sourceAddress(r)
	if !s.local(source) {
		http.NotFound(w, r)
		return
	}
	if !plain(w, r) {
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	switch r.URL.Path {
	case "/v1/metadata":
		writeJSON(w, http.StatusOK, s.agentV1())
	case "/v1/tasks":
		s.tasksV1(w, r)
	case "/license":
		w.Header().Set("Content-Type", "text/plain")
		w.Write([]byte(license))
	default:
		writeJSON(w, http.StatusOK, struct{ AvailableCommands []string }{[]string{"/v1/metadata", "/v1/tasks", "/license"}})
	}
}

// local says whether an address is this host's or that of a container on it.
func (s *Server) local(addr netip.Addr) bool {
	if addr.IsLoopback() {
		return true
	}
	if _, ok := s.directory.byAddress(addr); ok {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == addr
	})
}

// agentV1 tells the host's cluster. A host of Berth's is in each cluster that has tasks on it; what is
// told is the cluster default if it is among them, or else the first by its ARN.
func (s *Server) agentV1() agentV1 {
	out := agentV1{Cluster: "default", Version: "Amazon ECS Agent - v" + agentVersion + " (berth " + s.cfg.Version + ")"}
	var clusterARN string
	for _, snap := range s.cfg.Tasks.Snapshot().Tasks {
		t := snap.Task
		isDefault := lastPart(t.ClusterArn) == "default"
		if clusterARN == "" || isDefault || lastPart(clusterARN) != "default" && t.ClusterArn < clusterARN {
			clusterARN = t.ClusterArn
			out.Cluster = lastPart(t.ClusterArn)
			if t.ContainerInstanceArn != "" {
				out.ContainerInstanceArn = &t.ContainerInstanceArn
			}
		}
	}
	return out
}

// agentVersion is of the agent whose API this is. Clients read it to learn what they may ask.
const agentVersion = "1.105.0"

func (s *Server) tasksV1(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	tasks := s.cfg.Tasks.Snapshot().Tasks
	switch byID, byARN := query.Has("dockerid"), query.Has("taskarn"); {
	case byID && byARN:
		writeJSON(w, http.StatusBadRequest, taskV1{})
		return
	case byID:
		id := query.Get("dockerid")
		tasks = slices.DeleteFunc(slices.Clone(tasks), func(snap agent.TaskSnapshot) bool { return !hasContainer(snap, id) })
	case byARN:
		arn := query.Get("taskarn")
		tasks = slices.DeleteFunc(slices.Clone(tasks), func(snap agent.TaskSnapshot) bool { return snap.Task.Arn != arn })
	default:
		out := tasksV1{Tasks: make([]taskV1, 0, len(tasks))}
		for _, snap := range tasks {
			out.Tasks = append(out.Tasks, renderV1(snap))
		}
		writeJSON(w, http.StatusOK, out)
		return
	}
	switch len(tasks) {
	case 0:
		writeJSON(w, http.StatusNotFound, taskV1{})
	case 1:
		writeJSON(w, http.StatusOK, renderV1(tasks[0]))
	default: // several IDs begin so
		writeJSON(w, http.StatusBadRequest, taskV1{})
	}
}

// hasContainer finds a container by its ID, or by the start of it where that has at most Docker's 12
// characters.
func hasContainer(snap agent.TaskSnapshot, id string) bool {
	const short = 12
	for i := range snap.Task.Containers {
		full := containerID(snap, i)
		if full == id || len(id) <= short && id != "" && strings.HasPrefix(full, id) {
			return true
		}
	}
	return false
}

func renderV1(snap agent.TaskSnapshot) taskV1 {
	t := snap.Task
	out := taskV1{
		Arn: t.Arn, DesiredStatus: desired(snap), KnownStatus: backendStatus(taskKnown(snap)),
		Family: t.Family, Version: strconv.FormatInt(t.Revision, 10), Containers: []containerV1{},
	}
	if out.KnownStatus == knownStopped && out.DesiredStatus != knownStopped {
		out.DesiredStatus = ""
	}
	for i, c := range t.Containers {
		if knownOrder[containerKnown(snap, i)] < knownOrder[knownCreated] {
			continue
		}
		st, id := statusOf(snap, i), containerID(snap, i)
		bindings := st.NetworkBindings
		if len(bindings) == 0 {
			bindings = c.PortMappings
		}
		v1 := containerV1{
			DockerID: id, DockerName: agent.DockerName(snap.Task, i), Name: c.Name, Image: c.Image, ImageID: st.ImageId,
			CreatedAt: at(st.CreatedAt), StartedAt: at(st.StartedAt), Ports: ports(bindings, false), Volumes: volumes(t, c),
		}
		if t.NetworkMode == "awsvpc" {
			v1.Networks = networks(snap, i)
			for p := range v1.Ports {
				v1.Ports[p].HostPort = v1.Ports[p].ContainerPort
			}
		}
		if c.RestartPolicy.GetEnabled() {
			v1.RestartCount = ptr(st.RestartCount)
		}
		out.Containers = append(out.Containers, v1)
	}
	return out
}

// backendStatus is what the API calls an agent's status.
func backendStatus(known string) string {
	if known == knownRunning || known == knownStopped {
		return known
	}
	return "PENDING"
}
