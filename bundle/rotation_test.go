// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/sign"
)

// The keys change from A to B by a release that A signs and that brings B. A device
// that missed it refuses what B alone signed, and says what is missing.
func TestRotationNeedsTheStepBetween(t *testing.T) {
	a, v1 := testKey(t, "a")
	b, v3 := testKey(t, "b")
	aPub, err := a.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	bPub, err := b.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	v2, err := sign.NewKeyring(aPub, bPub)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	release := func(name string, s sign.Signer) string {
		spec := testSpec(t, dir)
		spec.Version, spec.Signers = name, []sign.Signer{s}
		out := filepath.Join(dir, name)
		if err := Build(context.Background(), out, spec); err != nil {
			t.Fatal(err)
		}
		return out
	}
	second, third := release("2", a), release("3", b)
	for _, tc := range []struct {
		name   string
		path   string
		device *sign.Keyring
		ok     bool
	}{
		{"release 1 takes 2", second, v1, true},
		{"release 2 takes 3", third, v2, true},
		{"release 1 refuses 3", third, v1, false},
		{"release 3 refuses what A signed", second, v3, false},
	} {
		f, err := Open(tc.path, tc.device.Policy(1))
		if err == nil {
			f.Close()
		}
		if (err == nil) != tc.ok || err != nil && !errors.Is(err, sign.ErrUntrusted) {
			t.Errorf("%s: %v", tc.name, err)
		}
		if tc.path == third && !tc.ok && !strings.Contains(err.Error(), "key "+b.KeyID()+" is not known here; if it is a new one, install a release first that brings it") {
			t.Errorf("%s: %v; want the step that is missing", tc.name, err)
		}
	}
	// Signed by both, release 3 spares the step.
	f, err := Open(third, v3.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Resign(third, true, a); err != nil {
		t.Fatal(err)
	}
	g, err := Open(third, v1.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
}
