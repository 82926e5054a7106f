// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/sign"
)

// TestRefusals is scenario 7: what is refused changes nothing anywhere.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	dir := t.TempDir()
	server := s.serve(t, dir)
	private, _, err := sign.GenerateKey("ecdsa-p256", nil)
	if err != nil {
		t.Fatal(err)
	}
	stranger := filepath.Join(dir, "stranger.key")
	if err := os.WriteFile(stranger, private, 0o600); err != nil {
		t.Fatal(err)
	}
	unknown, err := sign.LoadSigner(t.Context(), stranger, nil)
	if err != nil {
		t.Fatal(err)
	}
	tooLarge := filepath.Join(dir, "large.img")
	if err := os.WriteFile(tooLarge, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	from, to := slotRange(t, "b")
	if err := os.Truncate(tooLarge, to-from+1<<20); err != nil {
		t.Fatal(err)
	}
	tiny := filepath.Join(dir, "tiny.img")
	if err := os.WriteFile(tiny, bytes.Repeat([]byte("system"), 1<<18), 0o644); err != nil {
		t.Fatal(err)
	}
	build := func(name string, r device.Release) string {
		r.Version, r.Sequence = name, 20
		if r.Image == "" {
			r.Image = tiny
		}
		if _, err := s.Bundle(t.Context(), r, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := s.alter(t, dir, s.two, "good.upb", bytes.Clone)
	cases := []struct{ name, bundle, want string }{
		{"untrusted key", build("untrusted.upb", device.Release{Signer: unknown}), "untrusted signature"},
		{"altered manifest", s.alter(t, dir, s.two, "altered.upb", alterManifest(t)), "untrusted signature"},
		{"wrong compatible", build("compatible.upb", device.Release{Compatible: "another-board"}), "bundle is for another-board"},
		{"image larger than the slot", build("large.upb", device.Release{Image: tooLarge}), "slot rootfs.b has"},
		{"truncated file", s.alter(t, dir, s.two, "truncated.upb", func(b []byte) []byte { return b[:len(b)-1000] }), "truncated bundle"},
		{"trailing bytes", s.alter(t, dir, s.two, "trailing.upb", func(b []byte) []byte { return append(b, "more"...) }), "trailing bytes"},
	}
	dev := s.device(t)
	boot(t, dev)
	snapshot := func(t *testing.T) []byte {
		run(t, dev, "sync")
		journal := run(t, dev, "sh", "-c", "cd /data/updaterd && cat journal.json floors.json slots.json deny.json 2>/dev/null; ls -A downloads 2>/dev/null; true")
		return append(readCard(t, dev, 0, to), journal...)
	}
	before := snapshot(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			for _, mode := range []string{"store", "stream"} {
				out := refused(t, dev, exitRefused, "updaterctl", "install", "--mode", mode, url(server, c.bundle))
				if !strings.Contains(out, c.want) {
					t.Errorf("%s mode: refused with %q, want %q", mode, out, c.want)
				}
				if !bytes.Equal(before, snapshot(t)) {
					t.Fatalf("%s mode: something on the card has changed", mode)
				}
			}
		})
	}
	t.Run("caller without the right", func(t *testing.T) {
		out := refused(t, dev, exitNotAuthorized, "su", "app", "-c", "updaterctl install "+url(server, good))
		if !strings.Contains(out, "only root") {
			t.Errorf("without polkit, an ordinary user was told: %s", out)
		}
		if !bytes.Equal(before, snapshot(t)) {
			t.Fatal("something on the card has changed")
		}
	})
	t.Run("altered payload, store mode", func(t *testing.T) {
		slots := readCard(t, dev, from, to)
		out := refused(t, dev, exitFailed, "updaterctl", "install", "--mode", "store", url(server, s.alter(t, dir, s.two, "payload.upb", alterPayload)))
		if !strings.Contains(out, "differ from the signed ones") {
			t.Errorf("an altered payload was refused with %s", out)
		}
		if !bytes.Equal(slots, readCard(t, dev, from, to)) {
			t.Error("store mode touched the slot")
		}
	})
	t.Run("altered payload, stream mode", func(t *testing.T) {
		old := readCard(t, dev, from, to)
		refused(t, dev, exitFailed, "updaterctl", "install", "--mode", "stream", url(server, "payload.upb"))
		run(t, dev, "sync")
		image, err := os.ReadFile(s.v2)
		if err != nil {
			t.Fatal(err)
		}
		onlySigned(t, readCard(t, dev, from, to), old, image)
		st := status(t, dev)
		if st.BootedSlot != "a" || st.PrimarySlot != "a" {
			t.Errorf("booted %s, primary %s; want a", st.BootedSlot, st.PrimarySlot)
		}
		expectEnv(t, dev, map[string]string{"boot_slot": "a", "upgrade_available": "0", "boot_bad": "b"})
		if out := refused(t, dev, 0, "updater-bootctl", "set-primary", "b"); !strings.Contains(out, "bad") {
			t.Errorf("set-primary of a bad slot was refused with %s", out)
		}
	})
	t.Run("and a good bundle is taken", func(t *testing.T) {
		run(t, dev, "updaterctl", "install", url(server, good))
	})
}

func alterManifest(t *testing.T) func([]byte) []byte {
	return func(b []byte) []byte {
		at := bytes.Index(b, []byte(`"payload":"`))
		if at < 0 {
			t.Fatal("the envelope has no payload")
		}
		// Base64 of the manifest: another letter is another manifest.
		at += 40
		if b[at] == 'A' {
			b[at] = 'B'
		} else {
			b[at] = 'A'
		}
		return b
	}
}

// alterPayload flips a bit in the middle of the delta and of the full recipe.
func alterPayload(b []byte) []byte {
	n, err := bundle.ParseHeader(b[:bundle.HeaderSize])
	if err != nil {
		panic(err)
	}
	payload := bundle.HeaderSize + n
	for at := payload + 1<<16; at < len(b); at += 1 << 17 {
		b[at] ^= 1
	}
	return b
}

// onlySigned fails if a slot holds anything but what was there before, what the
// signed image has at that place, or zeros in the first block.
func onlySigned(t *testing.T, now, old, image []byte) {
	t.Helper()
	const block = 4096
	for at := 0; at < len(now); at += block {
		b := now[at : at+block]
		signed := at+block <= len(image) && bytes.Equal(b, image[at:at+block])
		cleared := at == 0 && len(bytes.Trim(b, "\x00")) == 0
		if !signed && !cleared && !bytes.Equal(b, old[at:at+block]) {
			t.Fatalf("block %d of the slot is neither old nor signed", at/block)
		}
	}
}
