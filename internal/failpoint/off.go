//go:build !failpoints

package failpoint

// Hit marks a failpoint. Names read "room/operation/before" or "…/after".
func Hit(string) {}
