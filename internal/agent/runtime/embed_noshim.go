//go:build !embed_shim

package runtime

// embeddedShim is empty: this build is its own shim, under another name.
const embeddedShim = ""
