package wire

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/s3"
)

// Every request that the SDK's serializer writes for an operation of the model is taken for that
// operation, and every header and parameter of it that a member has arrives in that member. The fixtures
// have the bucket in the host's name, so it is put into the path here.
func TestS3Fixtures(t *testing.T) {
	t.Parallel()
	seen := 0
	for name, path := range fixtures(t, "s3", "request_snapshot", ".request.snap") {
		op := s3.Descriptor.Operation(name)
		if op == nil {
			continue // newer than the model, or left out of it
		}
		r, body := requestFixture(t, path)
		if op.URI != "/" {
			r.URL.Path, r.URL.RawPath = "/bucket"+r.URL.Path, "/bucket"+r.URL.EscapedPath()
		}
		// The one parameter that is a number in the model and a string in the SDK.
		r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, "__PartNumberMarker__", "1")
		if r.Header.Get("X-Amz-Part-Number-Marker") != "" {
			r.Header.Set("X-Amz-Part-Number-Marker", "1")
		}
		route, err := NewRouter(s3.Descriptor).Route(r, nil, "s3")
		if err != nil || route.Operation.Name != name {
			t.Errorf("%s routes to %+v: %v", name, route.Operation, err)
			continue
		}
		in, err := route.Protocol.DecodeRequest(op, r, body)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		v := reflect.ValueOf(in).Elem()
		for i := range op.Input.Members {
			m := &op.Input.Members[i]
			sent := m.Location == api.InURI ||
				m.Location == api.InHeader && r.Header.Get(m.Wire()) != "" || m.Location == api.InQueryString && r.URL.Query().Has(m.Wire()) ||
				m.Name == op.Input.Payload && len(body) > 0
			if sent && absent(v.Field(m.Index)) {
				t.Errorf("%s: %s did not arrive", name, m.Name)
			}
		}
		seen++
	}
	if want := len(s3.Descriptor.Operations); seen < want-5 {
		t.Errorf("%d fixtures for %d operations", seen, want)
	}
}

// The names of an object's metadata keep their letters, as S3 sends them: boto3 takes the keys of its
// dictionary from the header as it came.
func TestMetadataHeadersAreLowerCase(t *testing.T) {
	t.Parallel()
	out := &s3.HeadObjectOutput{Metadata: map[string]string{"color": "dark blue"}, ETag: api.Ptr(`"e"`)}
	resp, err := restXML{}.EncodeResponse(s3.Descriptor, s3.Descriptor.Operation("HeadObject"), out, "id")
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1008 S3 keeps the letters of the names that users give
	if got := resp.Header["x-amz-meta-color"]; len(got) != 1 || got[0] != "dark blue" {
		t.Errorf("headers %v", resp.Header)
	}
}

// What is read from XML is what was written.
func TestXMLRoundTrip(t *testing.T) {
	t.Parallel()
	op := s3.Descriptor.Operation("DeleteObjects")
	in := &s3.DeleteObjectsInput{Delete: &s3.Delete{Quiet: api.Ptr(true), Objects: []s3.ObjectIdentifier{
		{Key: api.Ptr(" a<&>\r\n\"ü ")}, {Key: api.Ptr(""), Size: api.Ptr(int64(7))}}}}
	m := op.Input.Member("Delete")
	b, err := appendXML(nil, reflect.ValueOf(in.Delete), m, "Delete")
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/bucket?delete", nil)
	out, err := restXML{}.DecodeRequest(op, r, b)
	if got := out.(*s3.DeleteObjectsInput); err != nil || !reflect.DeepEqual(got.Delete, in.Delete) || *got.Bucket != "bucket" {
		t.Errorf("%s\n%+v, %v", b, got, err)
	}
	for name, body := range map[string]string{
		"cut off": "<Delete><Object>", "two roots": "<Delete/><Delete/>", "text": "x", "wrong number": "<Delete><Object><Size>x</Size></Object></Delete>",
		"deep": strings.Repeat("<Delete>", 20_000), "entity": `<!DOCTYPE x [<!ENTITY a "b">]><Delete><Object><Key>&a;</Key></Object></Delete>`,
	} {
		if _, err := (restXML{}).DecodeRequest(op, r, []byte(body)); err == nil {
			t.Errorf("%s: no error", name)
		} else if e, ok := err.(api.Error); !ok || e.ErrorCode() != "MalformedXML" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzS3Request: no request makes the router or the decoder panic, and what is decoded can be judged.
func FuzzS3Request(f *testing.F) {
	f.Add("GET", "/b/k?partNumber=1&uploadId=x", "", "", []byte(nil))
	f.Add("POST", "/b?delete", "X-Amz-Meta-A", "b", []byte("<Delete><Object><Key>k</Key></Object></Delete>"))
	f.Add("PUT", "/b/%2F%zz//", "X-Amz-Copy-Source", "b/k", []byte("x"))
	f.Add("PUT", "/b", "", "", []byte("<CreateBucketConfiguration><LocationConstraint>eu-west-1</LocationConstraint></CreateBucketConfiguration>"))
	f.Fuzz(func(t *testing.T, method, target, name, value string, body []byte) {
		r, err := http.NewRequest(method, "http://h/"+strings.TrimPrefix(target, "/"), bytes.NewReader(body))
		if err != nil {
			return
		}
		if name != "" {
			r.Header.Set(name, value)
		}
		route, err := NewRouter(s3.Descriptor).Route(r, nil, "s3")
		if err != nil {
			return
		}
		in, err := route.Protocol.DecodeRequest(route.Operation, r, body)
		if err != nil {
			route.Protocol.EncodeError(route.Service, err.(api.Error), "id")
			return
		}
		Validate(route.Operation.Input, in)
	})
}
