package wire

import (
	"encoding/json"
	"testing"

	"github.com/berthhq/berth/api/ecs"
)

// The subject is the SDK's response fixture of CreateService: 15.7 kB with every member set. The
// encoding/json figures beside it are of the same types.

func createService(b *testing.B) (*ecs.CreateServiceOutput, []byte) {
	b.Helper()
	_, _, _, body := readFixture(b, fixtures(b, "ecs", "response_snapshot", ".response.snap")["CreateService"], false)
	out := new(ecs.CreateServiceOutput)
	if err := unmarshalJSON(ecs.Descriptor.Operation("CreateService").Output, out, body); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	return out, body
}

func BenchmarkEncodeJSON(b *testing.B) {
	out, _ := createService(b)
	op := ecs.Descriptor.Operation("CreateService")
	for b.Loop() {
		if _, err := awsJSON11.EncodeResponse(ecs.Descriptor, op, out, "id"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeJSONStandard(b *testing.B) {
	out, _ := createService(b)
	for b.Loop() {
		if _, err := json.Marshal(out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	_, body := createService(b)
	op := ecs.Descriptor.Operation("CreateService")
	for b.Loop() {
		if err := unmarshalJSON(op.Output, new(ecs.CreateServiceOutput), body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValidate(b *testing.B) {
	out, _ := createService(b)
	op := ecs.Descriptor.Operation("CreateService")
	for b.Loop() {
		Validate(op.Output, out)
	}
}

// BenchmarkDescribeTasks encodes what a console asks for all day: 100 tasks.
func BenchmarkDescribeTasks(b *testing.B) {
	_, _, _, body := readFixture(b, fixtures(b, "ecs", "response_snapshot", ".response.snap")["DescribeTasks"], false)
	op := ecs.Descriptor.Operation("DescribeTasks")
	out := new(ecs.DescribeTasksOutput)
	if err := unmarshalJSON(op.Output, out, body); err != nil {
		b.Fatal(err)
	}
	for len(out.Tasks) < 100 {
		out.Tasks = append(out.Tasks, out.Tasks[0])
	}
	b.ReportAllocs()
	for b.Loop() {
		resp, err := awsJSON11.EncodeResponse(ecs.Descriptor, op, out, "id")
		if err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(resp.Body)))
	}
}
