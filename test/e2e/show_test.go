package e2e

import (
	"encoding/json"
	"fmt"
)

// show prints what the SDK answers, its pointers followed.
func show(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprintf("%+v", v)
	}
	return string(raw)
}
