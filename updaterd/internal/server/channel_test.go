// SPDX-License-Identifier: Apache-2.0

package server

import (
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

var stable = update.ChannelStatus{
	Name: "stable", Ref: "https://user:secret@updates.example/stable.channel?token=secret", Freshness: update.Fresh,
	Serial: 7, Issued: time.Unix(1700000000, 0), Expires: time.Unix(1701000000, 0), Checked: time.Unix(1700000100, 0),
	Offer: &update.Offer{Ref: "https://cdn.example/2.upb?signature=secret", Digest: "sha256:dd", Version: "2.0", Sequence: 42, Size: 5},
}

func TestCheckAndTheChannel(t *testing.T) {
	fake, _, address := serve(t, 0)
	m := manager(t, address)
	// Without a channel the property is empty, and there is nothing to check.
	if v, err := m.GetProperty(ManagerInterface + ".Channel"); err != nil || len(v.Value().(map[string]dbus.Variant)) != 0 {
		t.Errorf("%v, %v", v, err)
	}
	if err := m.Call(ManagerInterface+".Check", 0).Err; errorName(err) != "org.updaterd.Error.BadState" {
		t.Errorf("%v", err)
	}
	got := signals(t, address)
	fake.Change(func(s *update.Snapshot) { c := stable; s.Channel = &c })
	var channel values
	if err := m.Call(ManagerInterface+".Check", 0).Store(&channel); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"Name": "stable", "Ref": "https://updates.example/stable.channel?...", "Freshness": "fresh", "Serial": uint64(7),
		"Issued": uint64(1700000000), "Expires": uint64(1701000000), "Checked": uint64(1700000100), "Error": "",
	}
	for name, value := range want {
		if channel[name].Value() != value {
			t.Errorf("%s is %v, want %v", name, channel[name], value)
		}
	}
	offer, _ := channel["Offer"].Value().(map[string]dbus.Variant)
	for name, value := range map[string]any{"Ref": "https://cdn.example/2.upb?...", "Digest": "sha256:dd", "Version": "2.0", "Sequence": uint64(42), "Size": uint64(5)} {
		if offer[name].Value() != value {
			t.Errorf("Offer: %s is %v, want %v", name, offer[name], value)
		}
	}
	// That metadata grow old is announced.
	fake.Change(func(s *update.Snapshot) { c := stable; c.Freshness, c.Offer = update.Expired, nil; s.Channel = &c })
	for signal := range got {
		if signal.Name != propertiesChanged || signal.Path != ManagerPath {
			continue
		}
		changed, _ := signal.Body[1].(map[string]dbus.Variant)
		now, _ := changed["Channel"].Value().(map[string]dbus.Variant)
		if now["Freshness"].Value() == "expired" {
			if o := now["Offer"].Value().(map[string]dbus.Variant); len(o) != 0 {
				t.Errorf("Offer is %v", o)
			}
			break
		}
	}
	fake.Fail("Check", &update.Error{Name: update.NameReplayed, Message: "serial 6, and serial 7 was seen already"})
	if err := m.Call(ManagerInterface+".Check", 0).Err; errorName(err) != "org.updaterd.Error.Replayed" {
		t.Errorf("%v", err)
	}
	// An empty reference is what the channel offers: the updater knows which.
	if err := m.Call(ManagerInterface+".Install", 0, "", values{}).Err; err != nil {
		t.Error(err)
	}
}

func TestChecksAreCountedWithInspections(t *testing.T) {
	fake, s, address := serve(t, 0)
	fake.Change(func(s *update.Snapshot) { c := stable; s.Channel = &c })
	for range maxInspections {
		s.inspect <- struct{}{}
	}
	m := manager(t, address)
	if err := m.Call(ManagerInterface+".Check", 0).Err; errorName(err) != "org.updaterd.Error.Busy" {
		t.Errorf("%v", err)
	}
	<-s.inspect
	if err := m.Call(ManagerInterface+".Check", 0).Err; err != nil {
		t.Errorf("%v; calls %v", err, fake.Calls())
	}
}

var _ Updater = (*servertest.Updater)(nil)
