package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/gateway/sigv4"
	"github.com/berthhq/berth/internal/wire"
)

// DefaultMaxBody is how long a request's body may be, in bytes, where the service says nothing else.
// It is what one store transaction takes; the largest request of ECS, a task definition, may be
// 64 KiB.
const DefaultMaxBody = 1 << 20

// Credentials finds the secret of an access key and whose it is.
type Credentials interface {
	// Lookup takes the access key ID and the session token of a request, "" for none. The principal it
	// answers has no Region and no RequestID. A key or token that is unknown or expired is a
	// *sigv4.Error; any other error is an outage.
	Lookup(ctx context.Context, accessKeyID, sessionToken string) (secret string, p caller.Principal, err error)
}

// Authorizer decides whether a call may be made. An error that is an api.Error goes to the caller as
// it is; Denied makes AWS's.
type Authorizer interface {
	Authorize(ctx context.Context, c Call) error
}

// Call is a call to be judged.
type Call struct {
	Principal caller.Principal
	Service   *api.Service
	Operation *api.Operation
	Input     any // of Operation.NewInput's type; not to be changed
}

// Action is the call's name in policies: "ecs:RunTask".
func (c Call) Action() string { return c.Service.SigningName + ":" + c.Operation.Name }

// AllowAll is the policy until there is an IAM: whoever is authenticated may do everything in their
// account.
type AllowAll struct{}

func (AllowAll) Authorize(context.Context, Call) error { return nil }

// Service is a service to be served.
type Service struct {
	Descriptor *api.Service
	// Implementation has the methods of the generated API interface.
	Implementation any
	// MaxBody in bytes; 0 is DefaultMaxBody.
	MaxBody int64
	// Invalid makes the error for an input that breaks constraints of the model, of which there is at
	// least one, or answers nil to leave the judgement to the service. A nil Invalid takes the service's
	// InvalidParameterException if it has one, else the protocol's common error, with AWS's text.
	Invalid func(op *api.Operation, vs []wire.Violation) error
	// Prepare changes r.URL into what the model's templates are written for, before a request in a REST
	// protocol is routed: S3's bucket may be in the host's name. Nil leaves it alone.
	Prepare func(r *http.Request)
}

// Config is what a Gateway is made from.
type Config struct {
	Account     string // 12 digits
	Region      string // where a request names none
	Credentials Credentials
	Authorizer  Authorizer   // nil: AllowAll
	Log         *slog.Logger // faults
	Audit       *slog.Logger // one line a call; nil: Log
	// Dev accepts any credentials, and none, as root. It is for loopback alone: see CheckListen.
	Dev bool
	// AllowedHosts are names, without port, that a request in dev mode may be addressed to beside
	// loopback addresses and localhost.
	AllowedHosts []string
	// Health answers why Berth cannot serve, or nil. May be nil itself.
	Health func(context.Context) error
}

// Gateway is the front door. It is an http.Handler, safe for concurrent use; services and rooms may
// be added while it serves.
type Gateway struct {
	cfg      Config
	verifier sigv4.Verifier
	rooms    *http.ServeMux

	mu       sync.RWMutex
	services map[string]*Service // by Package
	router   *wire.Router
	maxBody  int64 // of any service
}

// New makes a gateway that serves nothing yet but its health.
func New(cfg Config) (*Gateway, error) {
	switch {
	case !regexp.MustCompile(`^[0-9]{12}$`).MatchString(cfg.Account):
		return nil, fmt.Errorf("account ID %q is not 12 digits", cfg.Account)
	case !regexp.MustCompile(`^[a-z0-9-]{1,63}$`).MatchString(cfg.Region):
		return nil, fmt.Errorf("region %q is not a region's name", cfg.Region)
	case cfg.Credentials == nil || cfg.Log == nil:
		return nil, errors.New("a gateway needs credentials and a log")
	}
	if cfg.Authorizer == nil {
		cfg.Authorizer = AllowAll{}
	}
	if cfg.Audit == nil {
		cfg.Audit = cfg.Log
	}
	g := &Gateway{
		cfg: cfg, rooms: http.NewServeMux(), services: map[string]*Service{},
		router: wire.NewRouter(), maxBody: DefaultMaxBody,
	}
	g.rooms.HandleFunc("GET "+roomsPrefix+"health", g.health)
	return g, nil
}

// Register adds a service. It fails when the implementation lacks an operation of the descriptor.
func (g *Gateway) Register(s Service) error {
	impl := reflect.TypeOf(s.Implementation)
	for _, op := range s.Descriptor.Operations {
		if impl == nil {
			return fmt.Errorf("register %s: no implementation", s.Descriptor.Package)
		}
		if _, ok := impl.MethodByName(op.Name); !ok {
			return fmt.Errorf("register %s: %s has no method %s", s.Descriptor.Package, impl, op.Name)
		}
	}
	if s.MaxBody == 0 {
		s.MaxBody = DefaultMaxBody
	}
	if s.Invalid == nil {
		s.Invalid = func(_ *api.Operation, vs []wire.Violation) error { return invalid(s.Descriptor, vs) }
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.services[s.Descriptor.Package] != nil {
		return fmt.Errorf("register %s: it is served already", s.Descriptor.Package)
	}
	g.services[s.Descriptor.Package] = &s
	g.maxBody = max(g.maxBody, s.MaxBody)
	g.router = wire.NewRouter(g.descriptors()...)
	return nil
}

// descriptors are those of the services served, by name, so that routing depends on no order of
// registration.
func (g *Gateway) descriptors() []*api.Service {
	var ds []*api.Service
	for _, s := range g.services {
		ds = append(ds, s.Descriptor)
	}
	slices.SortFunc(ds, func(a, b *api.Service) int { return strings.Compare(a.Package, b.Package) })
	return ds
}

func (g *Gateway) service(name string) *Service {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.services[name]
}

func (g *Gateway) routing() (r *wire.Router, maxBody int64) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.router, g.maxBody
}
