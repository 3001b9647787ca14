package ecs

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
	"github.com/berthhq/berth/internal/ecs/state"
	"github.com/berthhq/berth/internal/store"
)

// accountDefault is the ID of the row of settings that hold for whoever has none of their own.
const accountDefault = "default"

// settingDualStack is a setting that the API has and its model does not name.
const settingDualStack ecs.SettingName = "dualStackIPv6"

// settingsPage is the most that one page of settings holds.
const settingsPage = 10

// settingValues are the settings there are, each with its values, the default first. Of them
// containerInsights is what a new cluster starts with; the others are kept and shown, and change nothing:
// ARNs are always long, tagging is always authorized, no task is retired.
var settingValues = map[ecs.SettingName][]string{
	ecs.SettingNameServiceLongArnFormat:            {"enabled"},
	ecs.SettingNameTaskLongArnFormat:               {"enabled"},
	ecs.SettingNameContainerInstanceLongArnFormat:  {"enabled"},
	settingDualStack:                               {"enabled", "disabled"},
	ecs.SettingNameFargateEventWindows:             {"disabled", "enabled"},
	ecs.SettingNameAwsvpcTrunking:                  {"disabled", "enabled"},
	ecs.SettingNameContainerInsights:               {"disabled", "enabled", "enhanced"},
	ecs.SettingNameFargateFIPSMode:                 {"disabled", "enabled"},
	ecs.SettingNameTagResourceAuthorization:        {"on", "off"},
	ecs.SettingNameFargateTaskRetirementWaitPeriod: {"7", "0", "14"},
	ecs.SettingNameGuardDutyActivate:               {"off", "on"},
	ecs.SettingNameDefaultLogDriverMode:            {"non-blocking", "blocking"},
}

func checkSetting(name ecs.SettingName, value *string) error {
	values, ok := settingValues[name]
	switch {
	case !ok:
		return invalid("Invalid setting name: %s", name)
	case name == ecs.SettingNameGuardDutyActivate && value != nil:
		return invalid("%s is managed by AWS and cannot be changed.", name)
	case value != nil && len(values) == 1 && *value == "disabled":
		return invalid("Opting out of the long ARN format is no longer possible: %s is always enabled.", name)
	case value != nil && !slices.Contains(values, *value):
		return invalid("Invalid value for %s: %s", name, *value)
	}
	return nil
}

// PutAccountSetting sets a principal's setting; the caller's own unless another is named.
func (s *Service) PutAccountSetting(ctx context.Context, in *ecs.PutAccountSettingInput) (*ecs.PutAccountSettingOutput, error) {
	id, err := settingsOf(ctx, in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	set, err := s.putSetting(ctx, id, in.Name, in.Value)
	return &ecs.PutAccountSettingOutput{Setting: set}, err
}

// PutAccountSettingDefault sets what holds for principals without a setting of their own.
func (s *Service) PutAccountSettingDefault(ctx context.Context, in *ecs.PutAccountSettingDefaultInput) (*ecs.PutAccountSettingDefaultOutput, error) {
	set, err := s.putSetting(ctx, accountDefault, in.Name, in.Value)
	return &ecs.PutAccountSettingDefaultOutput{Setting: set}, err
}

// DeleteAccountSetting removes a principal's setting: the account's holds again.
func (s *Service) DeleteAccountSetting(ctx context.Context, in *ecs.DeleteAccountSettingInput) (*ecs.DeleteAccountSettingOutput, error) {
	id, err := settingsOf(ctx, in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	if err := checkSetting(in.Name, nil); err != nil {
		return nil, err
	}
	if _, err := s.changeSettings(ctx, id, func(values map[string]string) { delete(values, string(in.Name)) }); err != nil {
		return nil, err
	}
	p, err := caller.From(ctx)
	if err != nil {
		return nil, err
	}
	value := ""
	set := setting(p.AccountID, id, in.Name, value)
	return &ecs.DeleteAccountSettingOutput{Setting: &set}, nil
}

// ListAccountSettings lists a principal's settings: those it has itself, or with effectiveSettings those
// that hold for it.
func (s *Service) ListAccountSettings(ctx context.Context, in *ecs.ListAccountSettingsInput) (*ecs.ListAccountSettingsOutput, error) {
	sc, err := scope(ctx)
	if err != nil {
		return nil, err
	}
	id, err := settingsOf(ctx, in.PrincipalArn)
	if err != nil {
		return nil, err
	}
	if in.Name != "" {
		if err := checkSetting(in.Name, nil); err != nil {
			return nil, err
		}
	} else if in.Value != nil {
		return nil, invalid("A value can be given with a name only.")
	}
	values := map[string]string{}
	snap := s.store.Snapshot()
	if api.Value(in.EffectiveSettings) {
		for name, of := range settingValues {
			values[string(name)] = of[0]
		}
		maps.Copy(values, settingsRow(snap, sc, accountDefault))
	}
	maps.Copy(values, settingsRow(snap, sc, id))
	names := slices.Sorted(maps.Keys(values))
	settings, next, err := page(func(yield func(string, ecs.Setting) bool) {
		for _, name := range names {
			if in.Name != "" && name != string(in.Name) || in.Value != nil && values[name] != *in.Value {
				continue
			}
			if !yield(name, setting(sc.Account, id, ecs.SettingName(name), values[name])) {
				return
			}
		}
	}, in.MaxResults, settingsPage, in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ecs.ListAccountSettingsOutput{Settings: settings, NextToken: next}, nil
}

// settingsOf is the row of a principal's settings: the caller's unless another of the account is named,
// which only the root user may do.
func settingsOf(ctx context.Context, principal *string) (string, error) {
	p, err := caller.From(ctx)
	if err != nil {
		return "", err
	}
	arn := api.Value(principal)
	if arn == "" {
		return settingsID(p), nil
	}
	root := caller.ForRoot(p.AccountID).ARN
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "iam" || parts[4] != p.AccountID || len(arn) > 512 {
		return "", invalid("Invalid principalArn: %s", arn)
	}
	if arn == root {
		arn = accountDefault
	}
	if settingsID(p) != arn && p.Kind != caller.Root {
		return "", &ecs.AccessDeniedException{Message: "Only the root user can use the account settings of another principal."}
	}
	return arn, nil
}

// settingsID is the row of a caller's settings. The root user's are the account's. A role's sessions
// share the role's; federated users have none of their own.
func settingsID(p caller.Principal) string {
	switch {
	case p.Kind == caller.Root || p.Kind == caller.Federated:
		return accountDefault
	case p.RoleARN != "":
		return p.RoleARN
	}
	return p.ARN
}

func settingsRow(v store.View, sc store.Scope, id string) map[string]string {
	if row, ok := state.Settings.Get(v, store.K(sc, id)); ok {
		return row.Value.Values
	}
	return nil
}

func (s *Service) putSetting(ctx context.Context, id string, name ecs.SettingName, value *string) (*ecs.Setting, error) {
	if value == nil {
		return nil, invalid("Value can not be blank.")
	}
	if err := checkSetting(name, value); err != nil {
		return nil, err
	}
	sc, err := s.changeSettings(ctx, id, func(values map[string]string) { values[string(name)] = *value })
	if err != nil {
		return nil, err
	}
	set := setting(sc.Account, id, name, *value)
	return &set, nil
}

func (s *Service) changeSettings(ctx context.Context, id string, change func(map[string]string)) (store.Scope, error) {
	sc, err := scope(ctx)
	if err != nil {
		return sc, err
	}
	_, err = s.store.Update(ctx, func(tx *store.Tx) error {
		values := map[string]string{}
		maps.Copy(values, settingsRow(tx, sc, id))
		change(values)
		state.Settings.Put(tx, store.K(sc, id), &state.AccountSettings{Values: values})
		return nil
	})
	return sc, err
}

func setting(account, id string, name ecs.SettingName, value string) ecs.Setting {
	if id == accountDefault {
		id = "arn:aws:iam::" + account + ":root"
	}
	kind := ecs.SettingTypeUser
	if name == ecs.SettingNameGuardDutyActivate {
		kind = ecs.SettingTypeAwsManaged
	}
	return ecs.Setting{Name: name, Value: &value, PrincipalArn: &id, Type: kind}
}
