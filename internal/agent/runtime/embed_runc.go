//go:build embed_runc

package runtime

import _ "embed"

// embeddedRunc is the static runc that scripts/build-runc.sh builds.
//
//go:embed embedded/runc
var embeddedRunc string
