package runtime

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the shim, as main lets berth.
func TestMain(m *testing.M) {
	if IsShim(os.Args) {
		ShimMain()
		return
	}
	os.Exit(m.Run())
}
