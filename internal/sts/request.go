package sts

import (
	"encoding/json"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/sts"
	"github.com/berthhq/berth/internal/caller"
)

// role is a role's ARN taken apart.
type role struct {
	partition, account, name string // the name without its path
}

// parseRole reads arn:PARTITION:iam::ACCOUNT:role/PATH/NAME. What it accepts is fit to be put into
// another ARN.
func parseRole(arn string) (role, error) {
	bad := invalid(arn + " is invalid")
	part := strings.Split(arn, ":")
	if len(part) != 6 || part[0] != "arn" || part[2] != "iam" || part[3] != "" {
		return role{}, bad
	}
	switch part[1] {
	case "aws", "aws-cn", "aws-us-gov":
	default:
		return role{}, bad
	}
	if len(part[4]) != 12 || strings.Trim(part[4], "0123456789") != "" {
		return role{}, bad
	}
	path, ok := strings.CutPrefix(part[5], "role/")
	if !ok {
		return role{}, bad
	}
	segments := strings.Split(path, "/")
	for _, s := range segments {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !inName(r) }) {
			return role{}, bad
		}
	}
	name := segments[len(segments)-1]
	if len(name) > 64 || len(path) > 512+64 {
		return role{}, bad
	}
	return role{part[1], part[4], name}, nil
}

// inName tells whether a character may be in a role's name: [\w+=,.@-].
func inName(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_+=,.@-", r)
}

// noMFA refuses what nobody here can have: a second factor.
func noMFA(serial, code *string) error {
	switch {
	case serial == nil && code == nil:
		return nil
	case serial == nil:
		return invalid("MFA serial number must be provided together with the token code")
	}
	return denied("MultiFactorAuthentication failed with invalid MFA one time pass code. ")
}

// sourceIdentity is what a session is to carry: it is set once and kept through role chaining.
func sourceIdentity(p caller.Principal, asked *string) (*string, error) {
	switch {
	case p.SourceIdentity == "":
		return asked, nil
	case asked == nil || *asked == p.SourceIdentity:
		return &p.SourceIdentity, nil
	}
	return nil, denied("The source identity of a session cannot be changed")
}

// maxPlain is how long an inline policy and the ARNs of managed ones may be together, in characters.
const maxPlain = 2048

// packedSize checks session policies and tags, and tells how much of their quota they take in percent;
// nil when there are none. AWS's packed format is its own; this counts plain characters, which AWS
// limits as well.
func packedSize(policy *string, arns []sts.PolicyDescriptorType, tags []sts.Tag) (*int32, error) {
	if policy == nil && len(arns) == 0 && len(tags) == 0 {
		return nil, nil
	}
	plain := 0
	if policy != nil {
		var document map[string]json.RawMessage
		if err := json.Unmarshal([]byte(*policy), &document); err != nil {
			return nil, &sts.MalformedPolicyDocumentException{Message: "This policy contains invalid Json"}
		}
		if document["Statement"] == nil {
			return nil, &sts.MalformedPolicyDocumentException{Message: "Syntax errors in policy."}
		}
		plain += len(*policy)
	}
	if len(arns) > 10 {
		return nil, &sts.PackedPolicyTooLargeException{Message: "Number of session policies exceeds the limit of 10"}
	}
	for _, a := range arns {
		arn := api.Value(a.Arn)
		if !strings.HasPrefix(arn, "arn:aws") || !strings.Contains(arn, ":policy/") {
			return nil, invalid("ARN " + arn + " is not valid.")
		}
		plain += len(arn)
	}
	if plain > maxPlain {
		return nil, &sts.PackedPolicyTooLargeException{Message: "The total packed size of session policies and session tags exceeds the limit"}
	}
	seen := map[string]bool{}
	for _, t := range tags {
		key := strings.ToLower(*t.Key)
		if seen[key] {
			return nil, invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[key] = true
		plain += len(*t.Key) + len(*t.Value)
	}
	return api.Ptr(int32(min(100, (100*plain+maxPlain-1)/maxPlain))), nil
}
