package wire

import (
	"net/http"

	"github.com/berthhq/berth/api"
)

// Router finds what a request is: it holds the services of one endpoint.
type Router struct {
	services []*api.Service
}

// NewRouter makes a router of services, all of whose protocols that are built it tries.
func NewRouter(services ...*api.Service) *Router { return &Router{services: services} }

// Route is what a request turned out to be.
type Route struct {
	Service   *api.Service   // nil when no service fits
	Operation *api.Operation // nil when the service has no such operation
	Protocol  Protocol       // never nil: the caller needs one to answer an error
}

// Route finds the service, the operation and the protocol of a request. signingName is the service in
// the signature's credential scope, "" for an unsigned request; it decides between services that the
// rest of the request does not tell apart. An error is an api.Error to be encoded with the Route's
// Protocol and Service, which are as good as could be found.
func (rt *Router) Route(r *http.Request, body []byte, signingName string) (Route, error) {
	// Without a service's help: JSON when the request looks like it, else XML, as AWS's front ends do.
	found := Route{Protocol: awsQuery{}}
	if looksJSON(r) {
		found.Protocol = awsJSON11
	}
	for _, svc := range rt.services {
		if signingName != "" && signingName != svc.SigningName {
			continue
		}
		for _, name := range svc.Protocols {
			p := ByName(name)
			if p == nil {
				continue
			}
			if signingName != "" && found.Service == nil {
				found.Service, found.Protocol = svc, p
			}
			operation, ok := p.Match(svc, r, body)
			if !ok {
				continue
			}
			found = Route{Service: svc, Operation: svc.Operation(operation), Protocol: p}
			if found.Operation == nil {
				return found, p.UnknownOperation(svc, r, body, operation)
			}
			return found, nil
		}
	}
	return found, found.Protocol.UnknownOperation(found.Service, r, body, "")
}

func looksJSON(r *http.Request) bool {
	switch mediaType(r.Header) {
	case contentJSON10, contentJSON11, "application/json":
		return true
	}
	return r.Header.Get("X-Amz-Target") != ""
}
