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
	"github.com/updaterd/updaterd/qemu/device"
	"github.com/updaterd/updaterd/qemu/origin"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/client"
)

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
	f, err := bundle.Open(filepath.Join(s.bundles, name), keyring.Policy(1))
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
			reboot(t, dev)
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
