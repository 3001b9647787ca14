package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/ecs"
	"github.com/aws/aws-sdk-go-v2/service/ecs/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/berthhq/berth/test/harness"
)

// raw is a request below the SDK, so that each part of it can be wrong.
type raw struct {
	target  string
	body    string
	typ     string
	method  string
	at      time.Time
	key     aws.Credentials
	service string
	region  string
	tamper  func(*http.Request)
	bare    bool // without a signature
}

func (r raw) send(t *testing.T, b *harness.Berth) (status int, code, message string, header http.Header) {
	t.Helper()
	if r.method == "" {
		r.method = http.MethodPost
	}
	if r.typ == "" {
		r.typ = "application/x-amz-json-1.1"
	}
	if r.at.IsZero() {
		r.at = time.Now()
	}
	if r.service == "" {
		r.service = "ecs"
	}
	if r.region == "" {
		r.region = "us-east-1"
	}
	if r.key.AccessKeyID == "" {
		r.key = b.Credentials()
	}
	req, err := http.NewRequestWithContext(ctx(t), r.method, b.Endpoint()+"/", strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", r.typ)
	if r.target != "" {
		req.Header.Set("X-Amz-Target", r.target)
	}
	if !r.bare {
		sum := sha256.Sum256([]byte(r.body))
		if err := v4.NewSigner().SignHTTP(context.Background(), r.key, req, hex.EncodeToString(sum[:]), r.service, r.region, r.at); err != nil {
			t.Fatal(err)
		}
	}
	if r.tamper != nil {
		r.tamper(req)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("the connection broke: %v", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Type    string `json:"__type"`
		Message string `json:"message"`
		Upper   string `json:"Message"`
	}
	if resp.StatusCode != http.StatusOK {
		if err := json.Unmarshal(answer, &e); err != nil {
			t.Fatalf("%s: the error is not JSON: %s", resp.Status, answer)
		}
	}
	if i := strings.LastIndexByte(e.Type, '#'); i >= 0 {
		e.Type = e.Type[i+1:]
	}
	return resp.StatusCode, e.Type, e.Message + e.Upper, resp.Header
}

// state is everything a client can see of an instance.
func state(t *testing.T, b *harness.Berth) string {
	t.Helper()
	c := b.ECS()
	clusters, err := c.ListClusters(ctx(t), &ecs.ListClustersInput{})
	if err != nil {
		t.Fatal(err)
	}
	seen, err := c.DescribeClusters(ctx(t), &ecs.DescribeClustersInput{Clusters: clusters.ClusterArns})
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := c.ListTaskDefinitions(ctx(t), &ecs.ListTaskDefinitionsInput{})
	if err != nil {
		t.Fatal(err)
	}
	families, err := c.ListTaskDefinitionFamilies(ctx(t), &ecs.ListTaskDefinitionFamiliesInput{})
	if err != nil {
		t.Fatal(err)
	}
	var tasks []any
	for _, arn := range clusters.ClusterArns {
		for _, status := range []types.DesiredStatus{types.DesiredStatusRunning, types.DesiredStatusStopped} {
			list, err := c.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &arn, DesiredStatus: status})
			if err != nil {
				t.Fatal(err)
			}
			tasks = append(tasks, list.TaskArns)
		}
	}
	return show([]any{seen.Clusters, definitions.TaskDefinitionArns, families.Families, tasks})
}

const ecsTarget = "AmazonEC2ContainerServiceV20141113."

// TestBadInput: every wrong request gets AWS's own error, and changes nothing.
func TestBadInput(t *testing.T) {
	t.Parallel()
	b := harness.Start(t, harness.Options{})
	w := newWorld(t, b)
	app := w.app("wait")
	definition := w.define(nil, app)
	w.running(w.run(definition))
	before := state(t, b)
	check := func(t *testing.T) {
		t.Helper()
		if after := state(t, b); after != before {
			t.Errorf("the state changed\nfrom %s\nto   %s", before, after)
		}
	}

	good := b.Credentials()
	wrong := good
	wrong.SecretAccessKey = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	unknown := aws.Credentials{AccessKeyID: "AKIAIOSFODNN7EXAMPLE", SecretAccessKey: "x"}
	strange := good
	strange.SessionToken = "not a token"
	// What is wrong with a signature is told with status 400, as AWS's JSON services do.
	create := `{"clusterName":"must-not-be"}`
	for about, c := range map[string]struct {
		request raw
		status  int
		code    string
	}{
		"malformed JSON":           {raw{target: ecsTarget + "CreateCluster", body: `{"clusterName":`}, 400, "SerializationException"},
		"JSON of another type":     {raw{target: ecsTarget + "CreateCluster", body: `[]`}, 400, "SerializationException"},
		"a member of another type": {raw{target: ecsTarget + "CreateCluster", body: `{"clusterName":{"a":1}}`}, 400, "SerializationException"},
		"trailing bytes":           {raw{target: ecsTarget + "CreateCluster", body: create + `}`}, 400, "SerializationException"},
		"deep nesting":             {raw{target: ecsTarget + "CreateCluster", body: `{"x":` + strings.Repeat("[", 100_000)}, 400, "SerializationException"},
		"no containers":            {raw{target: ecsTarget + "RegisterTaskDefinition", body: `{"family":"must-not-be","containerDefinitions":[]}`}, 400, "ClientException"},
		"unknown operation":        {raw{target: ecsTarget + "MakeCoffee", body: `{}`}, 400, "UnknownOperationException"},
		"wrong target":             {raw{target: "Nonsense", body: `{}`}, 400, "UnknownOperationException"},
		"another service's target": {raw{target: "DynamoDB_20120810.ListTables", body: `{}`, service: "dynamodb"}, 400, "UnknownOperationException"},
		"wrong secret":             {raw{target: ecsTarget + "CreateCluster", body: create, key: wrong}, 400, "InvalidSignatureException"},
		"unknown key":              {raw{target: ecsTarget + "CreateCluster", body: create, key: unknown}, 400, "UnrecognizedClientException"},
		"invented session token":   {raw{target: ecsTarget + "CreateCluster", body: create, key: strange}, 400, "UnrecognizedClientException"},
		"no signature":             {raw{target: ecsTarget + "CreateCluster", body: create, bare: true}, 400, "MissingAuthenticationTokenException"},
		"expired signature":        {raw{target: ecsTarget + "CreateCluster", body: create, at: time.Now().Add(-time.Hour)}, 400, "InvalidSignatureException"},
		"signature of the future":  {raw{target: ecsTarget + "CreateCluster", body: create, at: time.Now().Add(time.Hour)}, 400, "InvalidSignatureException"},
		"signed for another service": {raw{target: ecsTarget + "CreateCluster", body: create, service: "s3"},
			400, "InvalidSignatureException"},
		"body changed after signing": {raw{target: ecsTarget + "CreateCluster", body: create, tamper: func(r *http.Request) {
			changed := strings.Replace(create, "must", "shall", 1)
			r.Body, r.ContentLength = io.NopCloser(strings.NewReader(changed)), int64(len(changed))
		}}, 400, "InvalidSignatureException"},
		"target changed after signing": {raw{target: ecsTarget + "ListClusters", body: create, tamper: func(r *http.Request) {
			r.Header.Set("X-Amz-Target", ecsTarget+"CreateCluster")
		}}, 400, "InvalidSignatureException"},
		"broken authorization": {raw{target: ecsTarget + "CreateCluster", body: create, tamper: func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=")
		}}, 400, "IncompleteSignatureException"},
		"oversized body": {raw{target: ecsTarget + "CreateCluster", body: `{"clusterName":"` + strings.Repeat("a", 20<<20) + `"}`},
			413, "RequestEntityTooLargeException"},
	} {
		t.Run(about, func(t *testing.T) {
			status, code, message, header := c.request.send(t, b)
			if code != c.code || status != c.status {
				t.Errorf("%d %s: %s; want %d %s", status, code, message, c.status, c.code)
			}
			if header.Get("X-Amzn-Requestid") == "" {
				t.Error("no x-amzn-RequestId")
			}
			if strings.Contains(message, good.SecretAccessKey) {
				t.Error("the error tells the secret")
			}
			check(t)
		})
	}

	container := func(change func(*types.ContainerDefinition)) *ecs.RegisterTaskDefinitionInput {
		c := w.app("wait")
		change(&c)
		return &ecs.RegisterTaskDefinitionInput{Family: aws.String("must-not-be"), ContainerDefinitions: []types.ContainerDefinition{c}}
	}
	many := func(n int, essential bool) *ecs.RegisterTaskDefinitionInput {
		in := &ecs.RegisterTaskDefinitionInput{Family: aws.String("must-not-be")}
		for i := range n {
			c := w.app("wait")
			c.Name, c.Essential = aws.String(fmt.Sprint("c", i)), &essential
			in.ContainerDefinitions = append(in.ContainerDefinitions, c)
		}
		return in
	}
	for about, c := range map[string]struct {
		in    *ecs.RegisterTaskDefinitionInput
		code  string
		words []string
	}{
		"64 KiB and more": {container(func(c *types.ContainerDefinition) {
			c.Environment = []types.KeyValuePair{{Name: aws.String("BIG"), Value: aws.String(strings.Repeat("a", 66<<10))}}
		}), "ClientException", nil},
		"11 containers":          {many(11, true), "ClientException", []string{"container"}},
		"no essential container": {many(2, false), "ClientException", []string{"essential"}},
		"no image":               {container(func(c *types.ContainerDefinition) { c.Image = nil }), "ClientException", []string{"image"}},
		"no memory at all":       {container(func(c *types.ContainerDefinition) { c.Memory = nil }), "ClientException", []string{"memory"}},
		"too little memory":      {container(func(c *types.ContainerDefinition) { c.Memory = aws.Int32(1) }), "ClientException", []string{"memory"}},
		"port out of range": {container(func(c *types.ContainerDefinition) {
			c.PortMappings = []types.PortMapping{{ContainerPort: aws.Int32(70000)}}
		}), "ClientException", []string{"port"}},
		"the same name twice": {func() *ecs.RegisterTaskDefinitionInput {
			in := many(2, true)
			in.ContainerDefinitions[1].Name = in.ContainerDefinitions[0].Name
			return in
		}(), "ClientException", []string{"name"}},
		"a bad family": {&ecs.RegisterTaskDefinitionInput{Family: aws.String("no spaces!"), ContainerDefinitions: []types.ContainerDefinition{app}}, "ClientException", []string{"family"}},
	} {
		t.Run(about, func(t *testing.T) {
			_, err := w.ecs.RegisterTaskDefinition(ctx(t), c.in)
			wantError(t, err, c.code, c.words...)
			check(t)
		})
	}

	for about, c := range map[string]struct {
		call func() error
		code string
	}{
		"RunTask in an unknown cluster": {func() error {
			_, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: aws.String("nowhere"), TaskDefinition: &definition})
			return err
		}, "ClusterNotFoundException"},
		"RunTask of an unknown definition": {func() error {
			_, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: aws.String("nothing:7")})
			return err
		}, "ClientException"},
		"RunTask of 11": {func() error {
			_, err := w.ecs.RunTask(ctx(t), &ecs.RunTaskInput{Cluster: &w.cluster, TaskDefinition: &definition, Count: aws.Int32(11)})
			return err
		}, "InvalidParameterException"},
		"StopTask of a bad ID": {func() error {
			_, err := w.ecs.StopTask(ctx(t), &ecs.StopTaskInput{Cluster: &w.cluster, Task: aws.String("?")})
			return err
		}, "InvalidParameterException"},
		"CreateCluster with a bad name": {func() error {
			_, err := w.ecs.CreateCluster(ctx(t), &ecs.CreateClusterInput{ClusterName: aws.String("no spaces!")})
			return err
		}, "InvalidParameterException"},
		"DeleteCluster of an unknown one": {func() error {
			_, err := w.ecs.DeleteCluster(ctx(t), &ecs.DeleteClusterInput{Cluster: aws.String("nowhere")})
			return err
		}, "ClusterNotFoundException"},
		"ListTasks with a forged token": {func() error {
			_, err := w.ecs.ListTasks(ctx(t), &ecs.ListTasksInput{Cluster: &w.cluster, NextToken: aws.String("forged!")})
			return err
		}, "InvalidParameterException"},
	} {
		t.Run(about, func(t *testing.T) {
			wantError(t, c.call(), c.code)
			check(t)
		})
	}
	t.Run("an operation that is not built", func(t *testing.T) {
		_, err := w.ecs.CreateCapacityProvider(ctx(t), &ecs.CreateCapacityProviderInput{Name: aws.String("x")})
		var api smithy.APIError
		if !errors.As(err, &api) || api.ErrorCode() == "" {
			t.Errorf("not a typed error: %v", err)
		}
		check(t)
	})
	t.Run("unknown members are tolerated", func(t *testing.T) {
		status, code, message, _ := raw{target: ecsTarget + "ListClusters", body: `{"somethingNew":{"a":[1]}}`}.send(t, b)
		if status != http.StatusOK {
			t.Errorf("%d %s %s", status, code, message)
		}
	})
	t.Run("garbage on the socket", func(t *testing.T) {
		req, err := http.NewRequest(http.MethodPut, b.Endpoint()+"/../../%00", bytes.NewReader([]byte{0, 1, 2}))
		if err == nil {
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
				if resp.StatusCode < 400 {
					t.Errorf("answered %s", resp.Status)
				}
			}
		}
		check(t)
	})
}

func TestSessions(t *testing.T) {
	t.Parallel()
	b := plain(t)
	who, err := b.STS().GetCallerIdentity(ctx(t), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	if aws.ToString(who.Account) != "000000000000" || aws.ToString(who.Arn) != "arn:aws:iam::000000000000:root" {
		t.Errorf("GetCallerIdentity: %s", show(who))
	}
	assumed, err := b.STS().AssumeRole(ctx(t), &sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::000000000000:role/deploy"), RoleSessionName: aws.String("tester"), DurationSeconds: aws.Int32(900)})
	if err != nil {
		t.Fatalf("AssumeRole: %v", err)
	}
	session, err := b.STS().GetSessionToken(ctx(t), &sts.GetSessionTokenInput{})
	if err != nil {
		t.Fatalf("GetSessionToken: %v", err)
	}
	for about, c := range map[string]struct {
		key aws.Credentials
		arn string
	}{
		"AssumeRole": {aws.Credentials{AccessKeyID: *assumed.Credentials.AccessKeyId, SecretAccessKey: *assumed.Credentials.SecretAccessKey, SessionToken: *assumed.Credentials.SessionToken},
			"arn:aws:sts::000000000000:assumed-role/deploy/tester"},
		"GetSessionToken": {aws.Credentials{AccessKeyID: *session.Credentials.AccessKeyId, SecretAccessKey: *session.Credentials.SecretAccessKey, SessionToken: *session.Credentials.SessionToken},
			"arn:aws:iam::000000000000:root"},
	} {
		config := b.Config()
		config.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return c.key, nil })
		who, err := sts.NewFromConfig(config).GetCallerIdentity(ctx(t), &sts.GetCallerIdentityInput{})
		if err != nil || aws.ToString(who.Arn) != c.arn {
			t.Errorf("%s: %v, identity %s, want %s", about, err, aws.ToString(who.Arn), c.arn)
		}
		if _, err := ecs.NewFromConfig(config).ListClusters(ctx(t), &ecs.ListClustersInput{}); err != nil {
			t.Errorf("%s: ECS refuses the session: %v", about, err)
		}
		without := c.key
		without.SessionToken = ""
		if status, code, _, _ := (raw{target: ecsTarget + "ListClusters", body: `{}`, key: without}).send(t, b); status != http.StatusBadRequest || code != "UnrecognizedClientException" {
			t.Errorf("%s: without its token the key still works: %d %s", about, status, code)
		}
	}
}
