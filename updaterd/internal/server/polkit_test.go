// SPDX-License-Identifier: Apache-2.0

package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

const notAuthorized = "org.updaterd.Error.NotAuthorized"

// requests is one call of each method that changes or reveals something.
func requests(conn *dbus.Conn, flags dbus.Flags) map[string]func() error {
	m, j := conn.Object(Name, ManagerPath), conn.Object(Name, jobRoot+"/1")
	install := func(option string) func() error {
		return func() error {
			options := values{}
			if option != "" {
				options[option] = dbus.MakeVariant(true)
			}
			return m.Call(ManagerInterface+".Install", flags, "/x", options).Err
		}
	}
	return map[string]func() error{
		"inspect":        func() error { return m.Call(ManagerInterface+".Inspect", flags, "/x", values{}).Err },
		"check":          func() error { return m.Call(ManagerInterface+".Check", flags).Err },
		"install":        install(""),
		"install retry":  install("retry"),
		"install reboot": install("reboot"),
		"install permit": func() error {
			return m.Call(ManagerInterface+".Install", flags, "/x", values{"permit": dbus.MakeVariant([]byte("permit"))}).Err
		},
		"activate":  func() error { return m.Call(ManagerInterface+".Activate", flags).Err },
		"reboot":    func() error { return m.Call(ManagerInterface+".Reboot", flags).Err },
		"mark":      func() error { return m.Call(ManagerInterface+".Mark", flags, "bad", "b").Err },
		"mark good": func() error { return m.Call(ManagerInterface+".Mark", flags, "good", "booted").Err },
		"cancel":    func() error { return j.Call(JobInterface+".Cancel", flags).Err },
		"pause":     func() error { return j.Call(JobInterface+".Pause", flags).Err },
		"resume":    func() error { return j.Call(JobInterface+".Resume", flags).Err },
	}
}

func TestWithoutPolkitOnlyRootMay(t *testing.T) {
	fake, _, address := serve(t, 1000)
	for name, request := range requests(servertest.Connect(t, address), 0) {
		if err := request(); errorName(err) != notAuthorized {
			t.Errorf("%s: %v", name, err)
		}
	}
	if calls := fake.Calls(); len(calls) != 0 {
		t.Errorf("the updater heard of %v", calls)
	}
	// Reading needs no right.
	m := manager(t, address)
	if err := m.Call("org.freedesktop.DBus.Properties.GetAll", 0, ManagerInterface).Err; err != nil {
		t.Error(err)
	}
	if err := m.Call(ManagerInterface+".History", 0, uint32(1)).Err; err != nil {
		t.Error(err)
	}
}

func TestEachRequestHasItsAction(t *testing.T) {
	for _, tt := range []struct {
		request string
		trial   bool
		want    []string
	}{
		{"inspect", false, []string{"inspect"}},
		{"check", false, []string{"inspect"}},
		{"install", false, []string{"install"}},
		{"install retry", false, []string{"install", "retry-known-bad"}},
		{"install permit", false, []string{"install", "downgrade"}},
		{"install reboot", false, []string{"install", "reboot"}},
		{"activate", false, []string{"install"}},
		{"reboot", false, []string{"reboot"}},
		{"mark", false, []string{"mark"}},
		{"mark", true, []string{"mark"}},
		{"mark good", false, []string{"mark"}},
		{"mark good", true, []string{"override-trial"}},
		{"cancel", false, []string{"control-job"}},
		{"pause", false, []string{"control-job"}},
		{"resume", false, []string{"control-job"}},
	} {
		t.Run(tt.request, func(t *testing.T) {
			fake, _, address := serve(t, 1000)
			fake.Change(func(s *update.Snapshot) { s.Trial = tt.trial })
			polkit := servertest.NewPolkit(t, address)
			request := requests(servertest.Connect(t, address), 0)[tt.request]
			// One no among several is enough.
			for i, refused := range tt.want {
				polkit.Say(func(action string, _ uint32) (bool, bool, *dbus.Error) {
					return action != "org.updaterd."+refused, false, nil
				})
				if err := request(); errorName(err) != notAuthorized {
					t.Errorf("%s refused: %v", refused, err)
				}
				if asked := polkit.Asked(); asked[len(asked)-1] != "org.updaterd."+tt.want[i] {
					t.Errorf("asked %v", asked)
				}
			}
			if calls := fake.Calls(); len(calls) != 0 {
				t.Errorf("the updater heard of %v", calls)
			}
			polkit.Say(func(action string, _ uint32) (bool, bool, *dbus.Error) {
				return slices.Contains(tt.want, strings.TrimPrefix(action, "org.updaterd.")), false, nil
			})
			if err := request(); errorName(err) == notAuthorized {
				t.Errorf("allowed: %v", err)
			}
		})
	}
}

func TestPolkitFailsClosed(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  string
	}{
		{"failed", "org.freedesktop.PolicyKit1.Error.Failed"},
		{"no reply", "org.freedesktop.DBus.Error.NoReply"},
		{"denied by the bus", "org.freedesktop.DBus.Error.AccessDenied"},
		{"does not start", "org.freedesktop.DBus.Error.Spawn.ChildExited"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake, _, address := serve(t, 1000)
			servertest.NewPolkit(t, address).Say(func(string, uint32) (bool, bool, *dbus.Error) {
				return true, false, &dbus.Error{Name: tt.err, Body: []any{"x"}}
			})
			for name, request := range requests(servertest.Connect(t, address), 0) {
				if err := request(); errorName(err) != notAuthorized {
					t.Errorf("%s: %v", name, err)
				}
			}
			if calls := fake.Calls(); len(calls) != 0 {
				t.Errorf("the updater heard of %v", calls)
			}
		})
	}
	// The bus cannot say who it is.
	_, s, address := serveKnowing(t, func(context.Context, string) (uint32, error) { return 0, errors.New("no such name") })
	if err := manager(t, address).Call(ManagerInterface+".Reboot", 0).Err; errorName(err) != notAuthorized {
		t.Errorf("%v", err)
	}
	if err := s.auth.check(context.Background(), &dbus.Message{}, actionReboot); err == nil {
		t.Error("a message without a sender was authorised")
	}
}

// The override has its own right even if the trial begins while polkit is asked.
func TestOverrideIsNotHadThroughMark(t *testing.T) {
	fake, _, address := serve(t, 1000)
	servertest.NewPolkit(t, address).Say(func(action string, _ uint32) (bool, bool, *dbus.Error) {
		fake.Change(func(s *update.Snapshot) { s.Trial = true })
		return action == actionMark, false, nil
	})
	if err := manager(t, address).Call(ManagerInterface+".Mark", 0, "good", "booted").Err; errorName(err) != notAuthorized {
		t.Errorf("%v", err)
	}
	if calls := fake.Calls(); len(calls) != 0 {
		t.Errorf("the updater heard of %v", calls)
	}
}

// The sender's wish to be asked for a password is handed on, and nothing else is.
func TestInteractionIsTheCallersWish(t *testing.T) {
	_, s, address := serve(t, 1000)
	flags := make(chan uint32, 3)
	servertest.NewPolkit(t, address).Say(func(_ string, f uint32) (bool, bool, *dbus.Error) {
		flags <- f
		return false, true, nil
	})
	sender := servertest.Connect(t, address).Names()[0]
	headers := map[dbus.HeaderField]dbus.Variant{dbus.FieldSender: dbus.MakeVariant(sender)}
	for _, f := range []dbus.Flags{0, dbus.FlagAllowInteractiveAuthorization, dbus.FlagNoAutoStart} {
		err := s.auth.check(context.Background(), &dbus.Message{Flags: f, Headers: headers}, actionReboot)
		if err == nil || !strings.Contains(err.Error(), "password") {
			t.Errorf("%v", err)
		}
	}
	for _, want := range []uint32{0, 1, 0} {
		if got := <-flags; got != want {
			t.Errorf("polkit was given flags %d, want %d", got, want)
		}
	}
}
