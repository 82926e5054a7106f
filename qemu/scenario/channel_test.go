// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/client"
)

// edition writes metadata of the channel "stable" that offer the bundle dir/2.upb and
// hold for ten days.
func (s *small) edition(t *testing.T, dir string, serial uint64) {
	t.Helper()
	keyring, err := sign.LoadKeyring(s.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	f, err := bundle.Open(filepath.Join(s.bundles, s.two), keyring.Policy(1))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	now := time.Now().UTC().Truncate(time.Second)
	b, err := channel.Seal(&channel.Metadata{Format: channel.Format, Channel: "stable", Serial: serial, Issued: now, Expires: now.AddDate(0, 0, 10),
		Releases: []channel.Release{{Compatible: f.Manifest.Compatible, Version: f.Manifest.Version, Sequence: f.Manifest.Sequence, Digest: f.Digest, URL: "2.upb"}}}, s.Signer)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stable.channel"), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// follow has the daemon that runs now look at the channel of a server: its
// configuration lies in a read-only image, so another one is mounted over it.
func follow(t *testing.T, d *device.Device, server *origin.Server) {
	t.Helper()
	lines := `\n[channel]\nname = "stable"\nurl = "` + url(server, "stable.channel") + `"\ninterval = "0s"\nexpired = "refuse"\n`
	run(t, d, "sh", "-c", `cd /etc/updaterd && { cat updaterd.toml; printf '`+lines+`'; } >/run/updaterd.toml && mount --bind /run/updaterd.toml updaterd.toml && kill $(pidof updaterd)`)
	run(t, d, "sh", "-c", "until updaterctl status | grep -q '^channel'; do sleep 1; done")
}

// TestChannel updates a device from a channel, which then replays what it served
// before, serves another bundle than it names, and serves nothing new.
func TestChannel(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	dir := t.TempDir()
	server := s.serve(t, dir)
	good := s.alter(t, dir, s.two, "2.upb", bytes.Clone)
	s.edition(t, dir, 7)
	dev := s.device(t)
	boot(t, dev)
	follow(t, dev, server)
	if c := status(t, dev).Channel; c == nil || c.Freshness != client.MetadataNever || c.Offer != nil {
		t.Errorf("before the first check: %+v", c)
	}
	run(t, dev, "updaterctl", "check")
	if c := status(t, dev).Channel; c.Freshness != client.MetadataFresh || c.Serial != 7 || c.Offer == nil || c.Offer.Version != "2.0" {
		t.Fatalf("after a check: %+v", c)
	}

	// Another bundle in its place, signed by the same key.
	s.alter(t, dir, s.one, good, bytes.Clone)
	from, to := slotRange(t, "b")
	before := readCard(t, dev, from, to)
	if out := refused(t, dev, exitRefused, "updaterctl", "install"); !strings.Contains(out, "the channel's metadata name") {
		t.Errorf("another bundle was refused with: %s", out)
	}
	if !bytes.Equal(before, readCard(t, dev, from, to)) || status(t, dev).State != client.Idle {
		t.Error("something has changed")
	}
	s.alter(t, dir, s.two, good, bytes.Clone)

	run(t, dev, "updaterctl", "install")
	reboot(t, dev)
	expectSlot(t, settled(t, dev, 3*time.Minute), "b", "2.0", client.Success, "is confirmed")

	// The new system knows what the old one saw.
	follow(t, dev, server)
	if out := run(t, dev, "updaterctl", "install"); !strings.Contains(out, "offers nothing newer") {
		t.Errorf("install of what runs says: %s", out)
	}
	s.edition(t, dir, 6)
	if out := refused(t, dev, exitRefused, "updaterctl", "check"); !containsAll(out, "serial 6", "serial 7") {
		t.Errorf("a replay was refused with: %s", out)
	}
	if c := status(t, dev).Channel; c.Serial != 7 || c.Error == "" {
		t.Errorf("after a replay: %+v", c)
	}

	// Nothing new for eleven days.
	s.edition(t, dir, 8)
	run(t, dev, "updaterctl", "check")
	run(t, dev, "sh", "-c", "date -s @$(($(date +%s) + 950400))")
	out := refused(t, dev, exitRefused, "updaterctl", "check")
	st := status(t, dev)
	if !strings.Contains(out, "expired on") || st.Channel.Freshness != client.MetadataExpired || !containsAll(strings.Join(st.Problems, "\n"), "expired on") {
		t.Errorf("a freeze: check says %s; status has %+v, problems %q", out, st.Channel, st.Problems)
	}
	if text := run(t, dev, "updaterctl", "status"); !strings.Contains(text, "stable, expired since ") {
		t.Errorf("a freeze is not shown:\n%s", text)
	}
}
