package metadata

import (
	"time"

	"golang.org/x/sys/unix"
)

// readClock asks the kernel how far its clock can be off. Nil where it does not say.
func readClock() *clockDrift {
	var tx unix.Timex // no mode: it is read alone
	state, err := unix.Adjtimex(&tx)
	if err != nil {
		return nil
	}
	out := &clockDrift{ErrorBound: float64(tx.Maxerror) / 1000, Status: "SYNCHRONIZED"}
	if state == unix.TIME_ERROR || tx.Status&unix.STA_UNSYNC != 0 {
		return &clockDrift{Status: "NOT_SYNCHRONIZED"}
	}
	out.Reference = ptr(time.Now().UTC())
	return out
}
