// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"

	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/client"
)

// keyFor is a key that is the same in every run, so that the systems that
// trust it need not be built anew.
func keyFor(t *testing.T, name string) (sign.Signer, []byte) {
	t.Helper()
	seed := sha256.Sum256([]byte("a key of the scenarios: " + name))
	private := ed25519.NewKeyFromSeed(seed[:])
	signer, err := sign.NewSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// TestRotation changes the key of a device from A to B, as docs/security.md
// says: release 2 is signed by A and brings B, release 3 is signed by B alone and
// no longer has A. A device that lacks the step between is told so.
func TestRotation(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	a := s.Signer
	b, public := keyFor(t, "B")
	system := func(version string, keys ...assets.File) string {
		return s.image(t, device.System{Flavour: assets.Small, Packages: assets.Base, Version: version, Health: healthOfSmall,
			Download: `store_budget = "48MiB"`, More: keys})
	}
	both := system("2.0-both", assets.File{Path: "/etc/updaterd/keys/b.pem", Content: public})
	alone := system("3.0-alone", assets.File{Path: "/etc/updaterd/keys/release.pem", Content: public})
	second := s.bundle(t, device.Release{Version: "2.0-both", Sequence: 20, Image: both, From: []string{s.v1}, Signer: a})
	third := s.bundle(t, device.Release{Version: "3.0-alone", Sequence: 30, Image: alone, From: []string{both, s.v1}, Signer: b})

	server := s.serve(t, s.bundles)
	dev := s.device(t)
	boot(t, dev)
	for _, verb := range []string{"inspect", "install"} {
		out := refused(t, dev, exitRefused, "updaterctl", verb, url(server, third))
		if !containsAll(out, "key "+b.KeyID()+" is not known here", "install a release first that brings it") {
			t.Errorf("%s of release 3 on release 1 was refused with: %s", verb, out)
		}
	}
	installAndReboot(t, dev, url(server, second))
	expectSlot(t, settled(t, dev, 3*time.Minute), "b", "2.0-both", client.Success, "is confirmed")
	installAndReboot(t, dev, url(server, third))
	expectSlot(t, settled(t, dev, 3*time.Minute), "a", "3.0-alone", client.Success, "is confirmed")
	if out := refused(t, dev, exitRefused, "updaterctl", "install", url(server, second)); !containsAll(out, "key "+a.KeyID()+" is not known here") {
		t.Errorf("release 2, signed by A, was refused on release 3 with: %s", out)
	}
}
