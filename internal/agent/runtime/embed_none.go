//go:build !embed_runc

package runtime

// embeddedRunc is empty: this build looks for runc on the host (findRunc).
const embeddedRunc = ""
