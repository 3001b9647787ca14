package metadata

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/berthhq/berth/internal/agent"
	"github.com/berthhq/berth/internal/dispatch/dispatchpb"
)

// Ports are those of Amazon's agent.
const (
	Port              = 51679 // where 169.254.170.2:80 is redirected to
	IntrospectionPort = 51678
)

// Source is where the tasks are known: *agent.Agent.
type Source interface {
	Snapshot() agent.Snapshot
	Task(arn string) (agent.TaskSnapshot, bool)
}

// Protector speaks to the server for the containers of this host.
type Protector interface {
	Protect(ctx context.Context, r *dispatchpb.ProtectionRequest) (*dispatchpb.ProtectionReply, error)
}

// Config is what the room needs. Dir is required by New; Tasks and Usage before Serve.
type Config struct {
	Dir string // holds the host's secret

	Tasks Source
	Usage agent.Processes
	// Protect is nil where there is no server to ask: the endpoint then says so.
	Protect Protector

	// Version is this Berth's, for the introspection API.
	Version string
	// Subnet is that of the host's awsvpc tasks, and DNSServers the name servers they have. Both are
	// only shown.
	Subnet     netip.Prefix
	DNSServers []string
	Logger     *slog.Logger
}

// Server answers. It implements agent.Metadata from New on; what it is asked, once Serve runs.
type Server struct {
	cfg       Config
	secret    []byte
	hostMode  string // what containers in network mode host ask
	directory directory
	meter     meter
	throttle  throttle
	log       *slog.Logger
}

var _ agent.Metadata = (*Server)(nil)

// New opens the host's secret in cfg.Dir, making it on first use.
func New(cfg Config) (*Server, error) {
	secret, err := openSecret(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, secret: secret, hostMode: taskURI, log: cfg.Logger}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.directory.endpointID = s.EndpointID
	s.Use(cfg.Tasks, cfg.Usage, cfg.Protect)
	return s, nil
}

// Use says whom to ask, where New was called before the agent was there: the agent needs the
// environment of its tasks, and this room the agent. It must come before Serve.
func (s *Server) Use(tasks Source, usage agent.Processes, protect Protector) {
	s.cfg.Tasks, s.cfg.Usage, s.cfg.Protect = tasks, usage, protect
	s.directory.source, s.meter.processes = tasks, usage
}

// HostMode says what containers in network mode host ask, "http://127.0.0.1:51679", where the redirect
// of 169.254.170.2 is not for them. It must come before the agent runs.
func (s *Server) HostMode(uri string) { s.hostMode = uri }

// taskURI is where containers find the endpoints.
const taskURI = "http://169.254.170.2"

// Environment names the endpoints to container i. A container without a network gets nothing.
func (s *Server) Environment(t *dispatchpb.Task, i int) []string {
	base := taskURI
	switch t.NetworkMode {
	case "none":
		return nil
	case "host":
		base = s.hostMode
	}
	if t.Containers[i].DisableNetworking {
		return nil
	}
	id := s.EndpointID(t, i)
	return []string{
		"ECS_CONTAINER_METADATA_URI=" + base + "/v3/" + id,
		"ECS_CONTAINER_METADATA_URI_V4=" + base + "/v4/" + id,
		"ECS_AGENT_URI=" + base + "/api/" + id,
	}
}

// EndpointID is the name by which container i asks: 32 hexadecimal digits, a hyphen and 10 digits. It
// follows from the host's secret and the container's ARN, so it is the same after a restart and there
// is nothing to store.
func (s *Server) EndpointID(t *dispatchpb.Task, i int) string {
	mac := hmac.New(sha256.New, s.secret)
	// Neither part has a newline.
	mac.Write([]byte(t.Arn + "\n" + cmp.Or(t.Containers[i].Arn, t.Containers[i].Name)))
	sum := mac.Sum(nil)
	return fmt.Sprintf("%s-%010d", hex.EncodeToString(sum[:16]), binary.BigEndian.Uint64(sum[16:])%1e10)
}

// idLength is that of an endpoint ID.
const idLength = 32 + 1 + 10

const secretSize = 32

// openSecret reads the host's secret. A file of another size is refused rather than replaced: running
// containers hold IDs made with what was there.
func openSecret(dir string) ([]byte, error) {
	if dir == "" {
		return nil, errors.New("metadata: Dir is required")
	}
	path := filepath.Join(dir, "endpoint-secret")
	secret, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		secret, err = makeSecret(dir, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open the secret of the metadata endpoint: %w", err)
	}
	if len(secret) != secretSize {
		return nil, fmt.Errorf("open the secret of the metadata endpoint: %s has %d bytes, not %d", path, len(secret), secretSize)
	}
	return secret, nil
}

func makeSecret(dir, path string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	secret := make([]byte, secretSize)
	rand.Read(secret)
	f, err := os.CreateTemp(dir, ".endpoint-secret.*") // with mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(secret)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return secret, err
}
