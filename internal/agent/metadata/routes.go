package metadata

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/berthhq/berth/internal/agent"
)

// route answers a request whose path has been split at its slashes.
func (s *Server) route(w http.ResponseWriter, r *http.Request, source netip.Addr, parts []string) {
	if parts[0] == "api" && len(parts) == 5 && parts[2] == "task-protection" && parts[3] == "v1" && parts[4] == "state" {
		s.protection(w, r, source, parts[1])
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	rest := strings.Join(parts[min(2, len(parts)):], "/")
	switch {
	case parts[0] == "v1" && len(parts) == 2 && parts[1] == "credentials":
		credentials(w, 1, r.URL.Query().Get("id"))
	case parts[0] == "v2" && len(parts) > 2 && parts[1] == "credentials":
		credentials(w, 2, rest)
	case parts[0] == "v2" && len(parts) > 1:
		s.v2(w, r, source, parts[1], rest)
	case parts[0] == "v3" && len(parts) > 1:
		s.v3(w, r, source, parts[1], parts[2:])
	case parts[0] == "v4" && len(parts) > 1:
		s.v4(w, r, source, parts[1], parts[2:])
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) view(v4 bool) view {
	return view{v4: v4, subnet: s.cfg.Subnet, dnsServers: s.cfg.DNSServers}
}

// find answers the container of an endpoint ID, unless the asker is known to be of another task.
func (s *Server) find(source netip.Addr, id string) (container, bool) {
	c, ok := s.directory.byEndpointID(id)
	if !ok {
		return container{}, false
	}
	if own, known := s.directory.byAddress(source); known && own.Task.Arn != c.Task.Arn {
		s.log.Warn("a container asked for another task's metadata", "from", source, "task", own.Task.Arn, "asked", c.Task.Arn)
		return container{}, false
	}
	return c, true
}

// credentials answers that there are none: no task has a role's credentials yet.
func credentials(w http.ResponseWriter, version int, id string) {
	type failure struct {
		Code          string `json:"code"`
		Message       string `json:"message"`
		HTTPErrorCode int
	}
	out := failure{"InvalidIdInRequest", fmt.Sprintf("CredentialsV%dRequest: Credentials not found", version), http.StatusBadRequest}
	if id == "" {
		out.Code, out.Message = "NoIdInRequest", fmt.Sprintf("CredentialsV%dRequest: No Credential ID in the request", version)
	}
	writeJSON(w, out.HTTPErrorCode, out)
}

// v2 answers what is asked without an endpoint ID. Where Amazon's agent shows any container of the host
// by its ID, here it is those of the asker's task.
func (s *Server) v2(w http.ResponseWriter, r *http.Request, source netip.Addr, what, id string) {
	switch what {
	case "metadata", "stats":
	case "metadataWithTags":
		if id != "" {
			http.NotFound(w, r)
			return
		}
	default:
		http.NotFound(w, r)
		return
	}
	snap, ok := s.directory.byAddress(source)
	if !ok {
		writeJSON(w, http.StatusBadRequest, fmt.Sprintf("Unable to get task arn from request: unable to associate '%s' with task", source))
		return
	}
	i, found := containerByID(snap, id)
	switch {
	case what == "stats" && id == "":
		s.taskStatsV2(w, r, snap)
	case what == "stats" && found:
		s.containerStatsV2(w, r, container{snap, i})
	case what == "stats":
		writeJSON(w, http.StatusBadRequest, "Unable to get container stats for: "+id)
	case id == "":
		writeJSON(w, http.StatusOK, s.view(false).taskV2(snap, what == "metadataWithTags"))
	case found:
		writeJSON(w, http.StatusOK, s.view(false).containerV2(snap, i))
	default:
		writeJSON(w, http.StatusBadRequest, "Unable to generate metadata for container '"+id+"'")
	}
}

func containerByID(snap agent.TaskSnapshot, id string) (i int, ok bool) {
	for i := range snap.Task.Containers {
		if containerID(snap, i) == id {
			return i, true
		}
	}
	return 0, false
}

func (s *Server) v3(w http.ResponseWriter, r *http.Request, source netip.Addr, id string, rest []string) {
	const (
		noTask      = "unable to get task arn from request: unable to get task Arn from v3 endpoint ID: "
		noContainer = "unable to get container ID from request: unable to get docker ID from v3 endpoint ID: "
	)
	c, ok := s.find(source, id)
	fail := func(status int, handler, reason string) {
		writeJSON(w, status, "V3 "+handler+" handler: "+reason+id)
	}
	switch what := strings.Join(rest, "/"); {
	case len(rest) == 0 && ok:
		writeJSON(w, http.StatusOK, s.view(false).containerV2(c.TaskSnapshot, c.i))
	case len(rest) == 0:
		fail(http.StatusInternalServerError, "container metadata", noContainer)
	case what == "task" || what == "taskWithTags":
		if !ok {
			fail(http.StatusInternalServerError, "task metadata", noTask)
			return
		}
		writeJSON(w, http.StatusOK, s.view(false).taskV2(c.TaskSnapshot, what == "taskWithTags"))
	case what == "stats" && ok:
		s.containerStatsV2(w, r, c)
	case what == "stats":
		fail(http.StatusBadRequest, "container stats", noTask)
	case what == "task/stats" && ok:
		s.taskStatsV2(w, r, c.TaskSnapshot)
	case what == "task/stats":
		fail(http.StatusBadRequest, "task stats", noTask)
	case rest[0] == "associations" && len(rest) > 1:
		s.associations(w, "V3", c, ok, id, rest[1:])
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) v4(w http.ResponseWriter, r *http.Request, source netip.Addr, id string, rest []string) {
	const (
		noTask      = "unable to get task arn from request: unable to get task Arn from v3 endpoint ID: "
		noContainer = "unable to get container ID from request: unable to get docker ID from v3 endpoint ID: "
	)
	c, ok := s.find(source, id)
	fail := func(handler, reason string) {
		writeJSON(w, http.StatusNotFound, "V4 "+handler+" handler: "+reason+id)
	}
	switch what := strings.Join(rest, "/"); {
	case len(rest) == 0 && ok:
		writeJSON(w, http.StatusOK, s.view(true).containerV4(c.TaskSnapshot, c.i))
	case len(rest) == 0:
		fail("container metadata", noContainer)
	case what == "task" || what == "taskWithTags":
		if !ok {
			fail("task metadata", noTask)
			return
		}
		writeJSON(w, http.StatusOK, s.taskV4(r, c.TaskSnapshot, what == "taskWithTags"))
	case what == "stats" && ok:
		s.containerStatsV4(w, r, c)
	case what == "stats":
		fail("container stats", noTask)
	case what == "task/stats" && ok:
		out := map[string]statsV4{}
		for id, reading := range s.meter.task(r.Context(), c.TaskSnapshot) {
			out[id] = statsV4{}
			if reading != nil {
				out[id] = statsV4{reading.stats(id), reading.rates()}
			}
		}
		writeJSON(w, http.StatusOK, out)
	case what == "task/stats":
		fail("task stats", noTask)
	case rest[0] == "associations" && len(rest) > 1:
		s.associations(w, "V4", c, ok, id, rest[1:])
	default:
		http.NotFound(w, r)
	}
}

// taskV4 adds what Fargate alone shows.
func (s *Server) taskV4(r *http.Request, snap agent.TaskSnapshot, tags bool) taskV4 {
	out := s.view(true).taskV4(snap, tags)
	if snap.Task.LaunchType != "FARGATE" {
		return out
	}
	out.ClockDrift = readClock()
	gib := snap.Task.EphemeralStorageGib
	if gib == 0 {
		gib = fargateStorageGiB
	}
	out.EphemeralStorageMetrics = &ephemeralStorage{
		Reserved: gib << 10, Utilized: stored(s.meter.task(r.Context(), snap)),
	}
	return out
}

// fargateStorageGiB is what a task on Fargate has without asking.
const fargateStorageGiB = 20

func (s *Server) taskStatsV2(w http.ResponseWriter, r *http.Request, snap agent.TaskSnapshot) {
	out := map[string]*stats{}
	for id, reading := range s.meter.task(r.Context(), snap) {
		out[id] = nil
		if reading != nil {
			out[id] = reading.stats(id)
		}
	}
	writeJSON(w, http.StatusOK, out)
}

func (s *Server) containerStatsV2(w http.ResponseWriter, r *http.Request, c container) {
	id := containerID(c.TaskSnapshot, c.i)
	reading, err := s.meter.read(r.Context(), id)
	if err != nil {
		s.log.Debug("no stats", "error", err)
		writeJSON(w, http.StatusBadRequest, "Unable to get container stats for: "+id)
		return
	}
	writeJSON(w, http.StatusOK, reading.stats(id))
}

func (s *Server) containerStatsV4(w http.ResponseWriter, r *http.Request, c container) {
	id := containerID(c.TaskSnapshot, c.i)
	reading, err := s.meter.read(r.Context(), id)
	if err != nil {
		s.log.Debug("no stats", "error", err)
		writeJSON(w, http.StatusInternalServerError, "Unable to get container stats for: "+id)
		return
	}
	writeJSON(w, http.StatusOK, statsV4{reading.stats(id), reading.rates()})
}

// associations tells the GPUs of a container, the only association there is. They have no content that
// could be asked for by name.
func (s *Server) associations(w http.ResponseWriter, version string, c container, ok bool, id string, rest []string) {
	kind, name := rest[0], strings.Join(rest[1:], "/")
	switch {
	case !ok && len(rest) == 1:
		writeJSON(w, http.StatusBadRequest, version+" container associations handler: unable to get container id from request: unable to get docker ID from v3 endpoint ID: "+id)
	case !ok:
		writeJSON(w, http.StatusBadRequest, version+" container associations handler: unable to get task arn from request: unable to get task Arn from v3 endpoint ID: "+id)
	case len(rest) == 1:
		var out struct{ Associations []string }
		if kind == "gpu" {
			out.Associations = c.Task.Containers[c.i].GpuIds
		}
		writeJSON(w, http.StatusOK, out)
	default:
		writeJSON(w, http.StatusBadRequest, fmt.Sprintf("Unable to write container association response: unable to get association from association type %s and association name %s", kind, name))
	}
}
