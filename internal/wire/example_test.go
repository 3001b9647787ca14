package wire_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/wire"
)

// clusters is a service with one operation; Unimplemented answers the others.
type clusters struct{ ecs.Unimplemented }

func (clusters) DescribeClusters(_ context.Context, in *ecs.DescribeClustersInput) (*ecs.DescribeClustersOutput, error) {
	if len(in.Clusters) == 0 {
		return nil, &ecs.InvalidParameterException{Message: "Which?"}
	}
	return &ecs.DescribeClustersOutput{Clusters: []ecs.Cluster{{ClusterName: &in.Clusters[0]}}}, nil
}

// What a gateway does with a request, but for authentication and authorization.
func Example() {
	router := wire.NewRouter(ecs.Descriptor)
	var impl ecs.API = clusters{}
	handler := func(w http.ResponseWriter, r *http.Request) {
		const requestID = "8c3e1f6e-…"
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return
		}
		route, err := router.Route(r, body, "" /* the signature's service */)
		var in, out any
		if err == nil {
			in, err = route.Protocol.DecodeRequest(route.Operation, r, body)
		}
		if err == nil {
			out, err = route.Operation.Invoke(r.Context(), impl, in)
		}
		var resp *wire.Response
		if err == nil {
			resp, err = route.Protocol.EncodeResponse(route.Service, route.Operation, out, requestID)
		}
		if err != nil {
			e, _ := api.AsError(err)
			resp = route.Protocol.EncodeError(route.Service, e, requestID)
		}
		resp.Write(w)
	}

	for _, body := range []string{`{"clusters":["demo"]}`, `{}`, `{"clusters":1}`} {
		r := httptest.NewRequest("POST", "/", strings.NewReader(body))
		r.Header.Set("X-Amz-Target", "AmazonEC2ContainerServiceV20141113.DescribeClusters")
		w := httptest.NewRecorder()
		handler(w, r)
		fmt.Println(w.Code, w.Body)
	}
	// Output:
	// 200 {"clusters":[{"clusterName":"demo"}]}
	// 400 {"__type":"InvalidParameterException","message":"Which?"}
	// 400 {"__type":"SerializationException","message":"NUMBER_VALUE can not be converted to a list"}
}
