package ecs_test

import (
	"slices"
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
	"github.com/berthhq/berth/internal/caller"
)

func TestAccountSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	effective := func(name ecs.SettingName) string {
		t.Helper()
		out, err := w.ecs.ListAccountSettings(w.ctx, &ecs.ListAccountSettingsInput{Name: name, EffectiveSettings: api.Ptr(true)})
		if err != nil || len(out.Settings) != 1 {
			t.Fatalf("ListAccountSettings: %v %+v", err, out)
		}
		return *out.Settings[0].Value
	}
	insights := ecs.SettingNameContainerInsights
	if got := effective(insights); got != "disabled" {
		t.Errorf("at first %s", got)
	}
	if _, err := w.ecs.PutAccountSettingDefault(w.ctx, &ecs.PutAccountSettingDefaultInput{Name: insights, Value: api.Ptr("enabled")}); err != nil {
		t.Fatal(err)
	}
	if got := effective(insights); got != "enabled" {
		t.Errorf("by default %s", got)
	}
	// The root user's own setting is the account's; a role has one of its own, for all its sessions.
	put, err := w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: insights, Value: api.Ptr("enabled")})
	if err != nil || *put.Setting.PrincipalArn != "arn:aws:iam::123456789012:root" || *put.Setting.Value != "enabled" {
		t.Fatalf("PutAccountSetting: %v %+v", err, put)
	}
	root := w.ctx
	w.ctx = caller.With(root, caller.Principal{
		Kind: caller.AssumedRole, AccountID: account, Region: region,
		ARN: "arn:aws:sts::123456789012:assumed-role/dev/me", RoleARN: "arn:aws:iam::123456789012:role/dev",
	})
	put, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: insights, Value: api.Ptr("enhanced")})
	if err != nil || *put.Setting.PrincipalArn != "arn:aws:iam::123456789012:role/dev" {
		t.Fatalf("PutAccountSetting of a role: %v %+v", err, put)
	}
	if got := effective(insights); got != "enhanced" {
		t.Errorf("of its own %s", got)
	}
	own, err := w.ecs.ListAccountSettings(w.ctx, &ecs.ListAccountSettingsInput{})
	if err != nil || len(own.Settings) != 1 {
		t.Errorf("own settings: %v %+v", err, own)
	}
	_, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: insights, Value: api.Ptr("disabled"), PrincipalArn: api.Ptr("arn:aws:iam::123456789012:root")})
	wantError(t, err, "AccessDeniedException", "root user")
	if _, err := w.ecs.DeleteAccountSetting(w.ctx, &ecs.DeleteAccountSettingInput{Name: insights}); err != nil {
		t.Fatal(err)
	}
	if got := effective(insights); got != "enabled" {
		t.Errorf("after deletion %s", got)
	}
	w.ctx = root
	// In pages, all of them.
	var names []string
	in := &ecs.ListAccountSettingsInput{EffectiveSettings: api.Ptr(true)}
	for {
		out, err := w.ecs.ListAccountSettings(w.ctx, in)
		if err != nil || len(out.Settings) > 10 {
			t.Fatalf("a page: %v, %d settings", err, len(out.Settings))
		}
		for _, set := range out.Settings {
			names = append(names, string(set.Name))
		}
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if len(names) != 12 || !slices.Contains(names, "dualStackIPv6") || !slices.IsSorted(names) {
		t.Errorf("settings: %v", names)
	}
	for _, c := range []struct {
		name  ecs.SettingName
		value string
		want  int
	}{{insights, "enabled", 1}, {insights, "disabled", 0}} {
		out, err := w.ecs.ListAccountSettings(w.ctx, &ecs.ListAccountSettingsInput{Name: c.name, Value: &c.value, EffectiveSettings: api.Ptr(true)})
		if err != nil || len(out.Settings) != c.want {
			t.Errorf("%s=%s: %v %+v", c.name, c.value, err, out)
		}
	}
	_, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: ecs.SettingNameTaskLongArnFormat, Value: api.Ptr("disabled")})
	wantError(t, err, "InvalidParameterException", "always enabled")
	_, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: ecs.SettingNameGuardDutyActivate, Value: api.Ptr("on")})
	wantError(t, err, "InvalidParameterException", "managed by AWS")
	_, err = w.ecs.ListAccountSettings(w.ctx, &ecs.ListAccountSettingsInput{Value: api.Ptr("enabled")})
	wantError(t, err, "InvalidParameterException", "name")
	_, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: insights, Value: api.Ptr("perhaps")})
	wantError(t, err, "InvalidParameterException", "perhaps")
	_, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: "nothing", Value: api.Ptr("enabled")})
	wantError(t, err, "InvalidParameterException", "nothing")
	_, err = w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: insights, Value: api.Ptr("enabled"), PrincipalArn: api.Ptr("arn:aws:iam::999999999999:user/x")})
	wantError(t, err, "InvalidParameterException", "principalArn")
	w.createCluster("demo")
	out, err := w.ecs.DescribeClusters(w.ctx, &ecs.DescribeClustersInput{Clusters: []string{"demo"}, Include: []ecs.ClusterField{ecs.ClusterFieldSettings}})
	if err != nil || *out.Clusters[0].Settings[0].Value != "enabled" {
		t.Errorf("a cluster takes the account's setting: %v %+v", err, out)
	}
}
