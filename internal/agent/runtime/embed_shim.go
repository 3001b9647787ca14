//go:build embed_shim

package runtime

import _ "embed"

// embeddedShim is the shim that scripts/build-shim.sh builds.
//
//go:embed embedded/shim
var embeddedShim string
