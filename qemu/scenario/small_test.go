// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/qemu/assets"
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/nbd"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/client"
)

const healthOfSmall = `min_uptime = "0s"
deadline = "2m"`

// small is two versions of the small system, and a bundle for each: v2's has a
// delta from v1 and the other way round.
type small struct {
	*workshop
	v1, v2   string // images
	one, two string // bundles
}

func smallSystems(t *testing.T) *small {
	t.Helper()
	w := workshopFor(t)
	s := &small{workshop: w}
	image := func(version string, packages assets.Packages) string {
		return w.image(t, device.System{Flavour: assets.Small, Packages: packages, Version: version, Health: healthOfSmall, Download: `store_budget = "48MiB"`})
	}
	s.v1, s.v2 = image("1.0", assets.Base), image("2.0", assets.Updated)
	s.one = w.bundle(t, device.Release{Version: "1.0", Sequence: 10, Image: s.v1, From: []string{s.v2}})
	s.two = w.bundle(t, device.Release{Version: "2.0", Sequence: 10, Image: s.v2, From: []string{s.v1}})
	return s
}

func (s *small) device(t *testing.T) *device.Device {
	t.Helper()
	return s.newDevice(t, assets.Disk{Flavour: assets.Small, SlotA: s.v1, EnvID: "factory"})
}

// slotRange is where a slot lies on the card.
func slotRange(t *testing.T, slot string) (from, to int64) {
	t.Helper()
	layout, err := (&assets.Disk{Flavour: assets.Small}).Layout()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range layout.Parts {
		if p.Name == "rootfs_"+slot {
			return p.Start, p.Start + p.Size
		}
	}
	t.Fatalf("no slot %s", slot)
	return 0, 0
}

func readCard(t *testing.T, d *device.Device, from, to int64) []byte {
	t.Helper()
	b := make([]byte, to-from)
	if _, err := d.Disk.ReadAt(b, from); err != nil {
		t.Fatal(err)
	}
	return b
}

// alter writes a changed copy of a bundle under another name.
func (s *small) alter(t *testing.T, dir, name, as string, change func([]byte) []byte) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.bundles, name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, as), change(b), 0o644); err != nil {
		t.Fatal(err)
	}
	return as
}

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

// A resume is a check that a download went on where it had come to.
type resume struct {
	server  *origin.Server
	entries []bundle.Entry
	from    int64 // first byte of the recipe's data in the file
}

func newResume(t *testing.T, s *small, server *origin.Server, name string) *resume {
	t.Helper()
	keyring, err := sign.LoadKeyring(s.Keyring)
	if err != nil {
		t.Fatal(err)
	}
	f, err := bundle.Open(filepath.Join(s.bundles, name), keyring, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img := &f.Manifest.Images[0]
	entries, err := f.Table(img, img.Full())
	if err != nil {
		t.Fatal(err)
	}
	return &resume{server, entries, f.PayloadOffset + img.Full().Data.Offset}
}

// finishedBytes is where in the file the chunks end that are complete if that
// many bytes of the recipe's data are stored.
func (r *resume) finishedBytes(stored int64) int64 {
	end := r.from
	for i := range bundle.Order(len(r.entries)) {
		e := r.entries[i]
		next := end + int64(e.Length)
		if next-r.from > stored {
			break
		}
		end = next
	}
	return end
}

// finishedChunks is where in the file the chunks end of which the slot holds the first n.
func (r *resume) finishedChunks(n int) int64 {
	end := r.from
	for i := range bundle.Order(len(r.entries)) {
		if n--; n < 0 {
			break
		}
		end += int64(r.entries[i].Length)
	}
	return end
}

// data is the log of the requests for the recipe's data.
func (r *resume) data() (log []origin.Request) {
	for _, q := range r.server.Requests() {
		if q.From >= r.from {
			log = append(log, q)
		}
	}
	return log
}

// expect waits for the request after the first n, and fails if it begins
// before want: then bytes of a finished chunk are fetched a second time.
func (r *resume) expect(t *testing.T, n int, want int64) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	for len(r.data()) <= n {
		select {
		case <-ctx.Done():
			t.Fatal("the download was never resumed")
		case <-time.After(100 * time.Millisecond):
		}
	}
	q := r.data()[n]
	t.Logf("finished up to byte %d; the next request is for %s", want, q.Range)
	if q.From < want {
		t.Errorf("request %s fetches %d bytes again", q.Range, want-q.From)
	}
}

// TestBadLink is scenario 5.
func TestBadLink(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	full := s.bundle(t, device.Release{Version: "2.0-full", Sequence: 10, Image: s.v2})
	image, err := os.ReadFile(s.v2)
	if err != nil {
		t.Fatal(err)
	}
	from, to := slotRange(t, "b")
	for _, mode := range []string{"store", "stream"} {
		t.Run(mode, func(t *testing.T) {
			server := s.serve(t, s.bundles)
			check := newResume(t, s, server, full)
			dev := s.device(t)
			boot(t, dev)
			server.Limit(2 << 20)
			run(t, dev, "updaterctl", "install", "--detach", "--mode", mode, url(server, full))
			waitSent(t, server, 2<<20)
			for range 3 {
				n, before := len(check.data()), check.data()
				server.Down(true)
				time.Sleep(300 * time.Millisecond)
				server.Down(false)
				check.expect(t, n, before[n-1].From+1)
				waitSent(t, server, server.Sent()+1<<20)
			}
			// The daemon stands still, is looked at, and dies.
			run(t, dev, "killall", "-STOP", "updaterd")
			n, finished := len(check.data()), int64(0)
			if mode == "store" {
				stored := run(t, dev, "sh", "-c", "cat /data/updaterd/downloads/*/data | wc -c")
				bytes, err := strconv.ParseInt(strings.TrimSpace(stored), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				finished = check.finishedBytes(bytes)
			} else {
				run(t, dev, "sync")
				finished = check.finishedChunks(finishedChunks(readCard(t, dev, from, to), image))
			}
			run(t, dev, "killall", "-KILL", "updaterd")
			check.expect(t, n, finished)
			if mode == "stream" {
				waitSent(t, server, server.Sent()+2<<20)
				dev.PowerOff()
				i := finishedChunks(readCard(t, dev, from, to), image)
				noise(t, dev, from+int64(i+1)*chunk+4096)
				n = len(check.data())
				boot(t, dev)
				check.expect(t, n, check.finishedChunks(i))
			}
			server.Limit(0)
			awaitInstalled(t, dev)
			run(t, dev, "sync")
			if !bytes.HasPrefix(readCard(t, dev, from, to), image) {
				t.Fatal("the slot does not hold the image")
			}
			resets := dev.Resets()
			run(t, dev, "updaterctl", "reboot")
			if err := dev.AwaitReset(within(t, 2*time.Minute), resets+1); err != nil {
				t.Fatal(err)
			}
			expectSlot(t, settled(t, dev, time.Minute), "b", "2.0", client.Success, "")
		})
	}
}

const chunk = bundle.DefaultChunkSize

// finishedChunks counts the chunks from 1 on that a slot holds; chunk 0 is written last.
func finishedChunks(slot, image []byte) int {
	n := 0
	for at := chunk; at+chunk <= len(image) && bytes.Equal(slot[at:at+chunk], image[at:at+chunk]); at += chunk {
		n++
	}
	return n
}

// noise spoils a chunk that is not finished while the device is off.
func noise(t *testing.T, dev *device.Device, at int64) {
	t.Helper()
	err := dev.Disk.Medium(func(card *os.File) error {
		_, err := card.WriteAt(bytes.Repeat([]byte{0xA5}, 5000), at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func waitSent(t *testing.T, server *origin.Server, n int64) {
	t.Helper()
	ctx := within(t, 2*time.Minute)
	for server.Sent() < n {
		select {
		case <-ctx.Done():
			t.Fatalf("the server has sent %d bytes and never got to %d", server.Sent(), n)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func awaitInstalled(t *testing.T, dev *device.Device) {
	t.Helper()
	ctx := within(t, 4*time.Minute)
	for {
		s, err := dev.Status(ctx)
		if err == nil && s.State == client.PendingReboot {
			return
		}
		if err == nil && s.State == client.Idle {
			t.Fatalf("the job ended: %+v", s.LastResult)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the update was never installed: %v %+v", err, s)
		case <-time.After(time.Second):
		}
	}
}

// TestPowerCuts is scenario 6: one device, whose plug is pulled in one update
// after the other, each time at another write.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	server := s.serve(t, s.bundles)
	dev := s.device(t)
	boot(t, dev)
	const env, envEnd, sectors = 0x100000, 0x10c000, 0x4000 / 512
	environment := func(w nbd.Write) bool { return w.Offset >= env && w.Offset < envEnd }
	for _, c := range []struct {
		name string
		n    int
	}{
		// The card writes a copy of the environment in sectors.
		{"first sector of marking the target bad", 1},
		{"between the copies of marking the target bad", sectors + 1},
		{"in the second copy", sectors + sectors/2},
		{"before commit point 1", 2*sectors + 1},
		{"in commit point 1", 2*sectors + sectors/2},
		{"in U-Boot's count of the first start", 3*sectors + sectors/2},
		{"before commit point 2", 4*sectors + 1},
		{"in commit point 2", 4*sectors + sectors/2},
		{"between commit point 2 and the second copy", 5*sectors + 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			cutAndFinish(t, s, dev, server, c.n, environment)
		})
		if t.Failed() {
			return
		}
	}
	for _, part := range []struct {
		name string
		n    int
	}{{"in the middle of the slot", 20_000}, {"in the first writes to the slot", 3}} {
		t.Run(part.name, func(t *testing.T) {
			from, to := slotRange(t, other(status(t, dev).BootedSlot))
			cutAndFinish(t, s, dev, server, part.n, func(w nbd.Write) bool { return w.Offset >= from && w.Offset < to })
		})
		if t.Failed() {
			return
		}
	}
}

func other(slot string) string {
	if slot == "a" {
		return "b"
	}
	return "a"
}

// cutAndFinish updates to the other version, cuts the power at the n-th write
// that matches, and expects that the update finishes by itself.
func cutAndFinish(t *testing.T, s *small, dev *device.Device, server *origin.Server, n int, match func(nbd.Write) bool) {
	before := status(t, dev)
	name, version := s.two, "2.0"
	if before.Version == "2.0" {
		name, version = s.one, "1.0"
	}
	server.Reset()
	dev.Disk.CutAtWrite(n, 0, match)
	go func() {
		// It ends with the power.
		_, _ = dev.Run(within(t, 3*time.Minute), "updaterctl", "install", "--reboot", url(server, name))
	}()
	select {
	case <-dev.Disk.Cut():
	case <-within(t, 3*time.Minute).Done():
		t.Fatalf("write %d never came", n)
	}
	dev.PowerOff()
	vars, copies, err := dev.Env()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("after the cut: %d intact copies, boot_slot=%s boot_bad=%q upgrade_available=%s bootcount=%s", copies, vars["boot_slot"], vars["boot_bad"], vars["upgrade_available"], vars["bootcount"])
	if strings.Contains(vars["boot_bad"], vars["boot_slot"]) {
		t.Fatal("the primary slot is marked bad")
	}
	if vars["upgrade_available"] != "1" && vars["boot_slot"] == before.TargetSlot && !holds(t, dev, before.TargetSlot, s) {
		t.Fatal("an incomplete slot is primary")
	}
	boot(t, dev)
	first := status(t, dev)
	if first.BootedSlot != before.BootedSlot && !first.Trial && first.State != client.Idle {
		t.Errorf("after the cut the device runs slot %s, neither confirmed before nor on trial", first.BootedSlot)
	}
	ctx := within(t, 4*time.Minute)
	for {
		st, err := dev.Status(ctx)
		if err == nil && st.Version == version && st.State == client.Idle && !st.Trial {
			expectSlot(t, st, before.TargetSlot, version, client.Success, "")
			break
		}
		if err == nil && st.State == client.Idle && st.LastResult != nil && st.LastResult.Outcome != client.Success {
			t.Fatalf("the update did not finish: %+v", st.LastResult)
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the update did not finish: %v %+v", err, st)
		case <-time.After(500 * time.Millisecond):
		}
	}
	expectEnv(t, dev, map[string]string{"boot_slot": before.TargetSlot, "upgrade_available": "0", "bootcount": "0", "boot_bad": ""})
	t.Logf("finished; %d bytes were sent in all", server.Sent())
}

func holds(t *testing.T, dev *device.Device, slot string, s *small) bool {
	t.Helper()
	from, to := slotRange(t, slot)
	card := readCard(t, dev, from, to)
	for _, path := range []string{s.v1, s.v2} {
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(card, image) {
			return true
		}
	}
	return false
}

// TestFailingMedium: what the card returns is not what was written, and the
// kernel's cache does not know.
func TestFailingMedium(t *testing.T) {
	t.Parallel()
	s := smallSystems(t)
	server := s.serve(t, s.bundles)
	dev := s.device(t)
	boot(t, dev)
	from, _ := slotRange(t, "b")
	dev.Disk.Spoil(from + 7<<20 + 512)
	out := refused(t, dev, exitFailed, "updaterctl", "install", "--reboot", url(server, s.two))
	if !strings.Contains(out, "read back") {
		t.Errorf("a card that loses what was written was reported as: %s", out)
	}
	st := settled(t, dev, time.Minute)
	if st.BootedSlot != "a" || st.PrimarySlot != "a" {
		t.Errorf("booted %s, primary %s; want a", st.BootedSlot, st.PrimarySlot)
	}
	expectEnv(t, dev, map[string]string{"boot_slot": "a", "upgrade_available": "0", "boot_bad": "b"})
}
