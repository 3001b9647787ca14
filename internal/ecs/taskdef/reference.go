package taskdef

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Reference names a task definition: "family", "family:revision", or the full ARN of one.
type Reference struct {
	Family   string
	Revision int32 // 0: the family's newest active revision
	// Partition, Region and Account are those of an ARN; empty otherwise.
	Partition, Region, Account string
}

// String writes the reference without what comes before the family in an ARN.
func (r Reference) String() string {
	if r.Revision == 0 {
		return r.Family
	}
	return fmt.Sprintf("%s:%d", r.Family, r.Revision)
}

// ParseReference reads a task definition's name as clients write it.
func ParseReference(s string) (Reference, error) {
	var r Reference
	rest := s
	if strings.HasPrefix(s, "arn:") {
		parts := strings.SplitN(s, ":", 6)
		if len(parts) != 6 || parts[2] != "ecs" || parts[3] == "" || parts[4] == "" {
			return Reference{}, invalidParameter("Invalid arn syntax.")
		}
		r.Partition, r.Region, r.Account = parts[1], parts[3], parts[4]
		var ok bool
		if rest, ok = strings.CutPrefix(parts[5], "task-definition/"); !ok {
			return Reference{}, invalidParameter("Invalid arn syntax.")
		}
	}
	family, revision, hasRevision := strings.Cut(rest, ":")
	switch {
	case family == "":
		return Reference{}, clientError("Family should not be null or empty.")
	case !namePattern.MatchString(family):
		return Reference{}, clientError("Family contains invalid characters.")
	}
	r.Family = family
	if hasRevision {
		n, err := strconv.ParseUint(revision, 10, 31)
		if err != nil || n == 0 || n > math.MaxInt32 {
			return Reference{}, invalidParameter("Invalid revision number. Number: %s", revision)
		}
		r.Revision = int32(n)
	}
	return r, nil
}
