package segment

import (
	"testing"

	"github.com/klauspost/compress/zstd"
)

func BenchmarkRates(b *testing.B) {
	in, _ := batches(1, 1<<20)
	var data []byte
	for _, e := range in[0] {
		data = append(data, e.Message...)
	}
	for _, l := range []zstd.EncoderLevel{1, 2, 3} {
		e, _ := zstd.NewWriter(nil, zstd.WithEncoderLevel(l), zstd.WithEncoderCRC(false), zstd.WithWindowSize(2<<20))
		b.Run(l.String(), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			out := make([]byte, 0, 1<<20)
			u := cpu()
			for b.Loop() {
				e.EncodeAll(data, out)
			}
			b.ReportMetric(float64(len(data)*b.N)/1e6/(cpu()-u).Seconds(), "MB/cpu-s")
		})
	}
	f := newFilterBuilder()
	b.Run("filter", func(b *testing.B) {
		u := cpu()
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			for _, e := range in[0] {
				f.add(e.Message)
			}
			f.finish()
		}
		b.ReportMetric(float64(len(data)*b.N)/1e6/(cpu()-u).Seconds(), "MB/cpu-s")
	})
	b.Run("record", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			newRecord(Group{}, "", in[0], len(data))
		}
	})
}
