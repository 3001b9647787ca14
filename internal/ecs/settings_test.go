package ecs_test

import (
	"testing"

	"github.com/berthhq/berth/api"
	"github.com/berthhq/berth/api/ecs"
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
	put, err := w.ecs.PutAccountSetting(w.ctx, &ecs.PutAccountSettingInput{Name: insights, Value: api.Ptr("enhanced")})
	if err != nil || *put.Setting.PrincipalArn != "arn:aws:iam::123456789012:root" || *put.Setting.Value != "enhanced" {
		t.Fatalf("PutAccountSetting: %v %+v", err, put)
	}
	if got := effective(insights); got != "enhanced" {
		t.Errorf("of its own %s", got)
	}
	own, err := w.ecs.ListAccountSettings(w.ctx, &ecs.ListAccountSettingsInput{})
	if err != nil || len(own.Settings) != 1 {
		t.Errorf("own settings: %v %+v", err, own)
	}
	if _, err := w.ecs.DeleteAccountSetting(w.ctx, &ecs.DeleteAccountSettingInput{Name: insights}); err != nil {
		t.Fatal(err)
	}
	if got := effective(insights); got != "enabled" {
		t.Errorf("after deletion %s", got)
	}
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
