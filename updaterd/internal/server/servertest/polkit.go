// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"sync"
	"testing"

	"github.com/godbus/dbus/v5"
)

// Polkit takes polkit's place on a private bus.
type Polkit struct {
	mu     sync.Mutex
	answer func(action string, flags uint32) (authorized, challenge bool, err *dbus.Error)
	asked  []string
}

// Subject is what polkit is told of the caller.
type Subject struct {
	Kind    string
	Details map[string]dbus.Variant
}

// Answer is what polkit says.
type Answer struct {
	Authorized, Challenge bool
	Details               map[string]string
}

// NewPolkit puts a polkit on the bus that says no.
func NewPolkit(t testing.TB, address string) *Polkit {
	t.Helper()
	p := &Polkit{}
	conn := Connect(t, address)
	if err := conn.Export(p, "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName("org.freedesktop.PolicyKit1", 0); err != nil {
		t.Fatal(err)
	}
	return p
}

// Say sets what it answers from now on.
func (p *Polkit) Say(answer func(action string, flags uint32) (authorized, challenge bool, err *dbus.Error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// Asked is every action it was asked about.
func (p *Polkit) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// CheckAuthorization is polkit's method.
func (p *Polkit) CheckAuthorization(s Subject, action string, _ map[string]string, flags uint32, _ string) (Answer, *dbus.Error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, action)
	if s.Kind != "system-bus-name" || s.Details["name"].Value() == nil {
		return Answer{}, dbus.MakeFailedError(dbus.ErrMsgInvalidArg)
	}
	if p.answer == nil {
		return Answer{Details: map[string]string{}}, nil
	}
	ok, challenge, err := p.answer(action, flags)
	return Answer{Authorized: ok, Challenge: challenge, Details: map[string]string{}}, err
}

// Allow makes it say yes to everything from now on.
func (p *Polkit) Allow() {
	p.Say(func(string, uint32) (bool, bool, *dbus.Error) { return true, false, nil })
}
