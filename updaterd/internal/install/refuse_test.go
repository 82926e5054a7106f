// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// Refused with a clear error, and nothing changed anywhere.
func TestRefusals(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	good := build(t, nil, "rootfs", v1, v2)
	head := bundle.HeaderSize + must(bundle.ParseHeader(good))
	altered := bytes.Clone(good)
	altered[head-200] ^= 1
	for name, c := range map[string]struct {
		data   []byte
		change func(*Options)
		target bootctl.Slot
		mode   string
		want   string
	}{
		"untrusted key": {data: build(t, func(s *bundle.Spec) { s.Signers = []sign.Signer{strangeKey().signer} }, "rootfs", nil, v2), want: update.NameUntrustedSignature},
		"threshold": {change: func(o *Options) {
			o.Policy = func() (*sign.Policy, error) { return newKey().keyring.Policy(2), nil }
		}, want: update.NameUntrustedSignature},
		"rule of another class":   {change: func(o *Options) { o.Policy = ruled("classes = [\"bootloader\"]", "") }, want: update.NameUntrustedSignature},
		"rule of another channel": {change: func(o *Options) { o.Policy = ruled("channels = [\"stable\"]", "") }, want: update.NameUntrustedSignature},
		"key expired at the time floor": {change: func(o *Options) {
			o.Policy = ruled("", "not_after = 9998-01-01T00:00:00Z")
			o.TimeFloor = func() time.Time { return time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }
		}, want: update.NameUntrustedSignature},
		"no keyring": {change: func(o *Options) {
			o.Policy = func() (*sign.Policy, error) { return nil, errors.New("no such directory") }
		}, want: update.NameUntrustedSignature},
		"altered manifest":                {data: altered, want: update.NameUntrustedSignature},
		"manifest for another compatible": {change: func(o *Options) { o.Compatible = "board-2" }, want: update.NameNotCompatible},
		"unknown class":                   {data: build(t, nil, "firmware", nil, v2), want: update.NameNotCompatible},
		"image too large":                 {data: build(t, nil, "rootfs", nil, noise(1, slotSize+1)), want: update.NameTooLarge},
		"truncated file":                  {data: good[:len(good)-1], want: update.NameMalformedBundle},
		"truncated head":                  {data: good[:head-10], want: update.NameMalformedBundle},
		"tiny file":                       {data: good[:10], want: update.NameMalformedBundle},
		"empty file":                      {data: []byte{}, want: update.NameMalformedBundle},
		"no bundle":                       {data: noise(1, 10_000), want: update.NameMalformedBundle},
		"trailing bytes":                  {data: append(bytes.Clone(good), 0), want: update.NameMalformedBundle},
		"booted slot":                     {target: "a", want: update.NameBadState},
		"no such slot":                    {target: "c", want: update.NameBadArgument},
		"booted unproven": {change: func(o *Options) {
			o.Booted = func() (bootctl.Slot, error) { return "", errors.New("rescue system") }
		}, want: update.NameBootedSlotUnproven},
		"target is booted by another name": {change: func(o *Options) {
			other := o.Slots["rootfs"]["b"]
			os.Remove(other)
			if err := os.Symlink(o.Slots["rootfs"]["a"], other); err != nil {
				panic(err)
			}
		}, want: update.NameBadState},
		"no device":    {change: func(o *Options) { os.Remove(o.Slots["rootfs"]["b"]) }, want: update.NameMedium},
		"no room":      {change: func(o *Options) { o.StoreBudget = 1000 }, mode: ModeStore, want: update.NameNoSpace},
		"over budget":  {change: func(o *Options) { o.ByteBudget = 1000 }, want: update.NameOverBudget},
		"unknown mode": {mode: "torrent", want: update.NameBadArgument},
	} {
		t.Run(name, func(t *testing.T) {
			data := c.data
			if data == nil {
				data = good
			}
			r := newRig(t, data, v1, noise(3, slotSize))
			if c.change != nil {
				c.change(&r.o)
				r.restart()
			}
			target := c.target
			if target == "" {
				target = "b"
			}
			_, err := r.engine.Inspect(t.Context(), r.url(), target, update.InstallOptions{Mode: c.mode})
			wantName(t, err, c.want)
			if b, err := os.ReadFile(r.o.Slots["rootfs"]["b"]); err == nil && name != "target is booted by another name" && !bytes.Equal(b, noise(3, slotSize)) {
				t.Error("the target slot was changed")
			}
			if left := must(os.ReadDir(r.o.Dir)); len(left) > 0 {
				t.Errorf("%v was stored", left)
			}
			if got, limit := r.server.total(), int64(head); got > limit && len(data) > 0 && name != "untrusted key" && name != "unknown class" && name != "image too large" && name != "no bundle" {
				t.Errorf("%d bytes served, want at most header and envelope (%d)", got, limit)
			}
		})
	}
}

func TestInspectNotFound(t *testing.T) {
	v1, _ := systems()
	r := newRig(t, nil, v1, nil)
	r.server.Close()
	r.o.InspectTimeout = 50_000_000
	r.restart()
	_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
	wantName(t, err, update.NameNetwork)
}

func TestLocalReference(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	r := newRig(t, data, v1, nil)
	path := write(t, filepath.Join(t.TempDir(), "stick.upb"), data)
	for _, mode := range modes {
		rel, err := r.engine.Inspect(t.Context(), path, "b", update.InstallOptions{Mode: mode})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.run(t.Context(), rel, quiet); err != nil {
			t.Fatal(err)
		}
		r.holds(v2, nil)
	}
	if _, err := r.engine.Inspect(t.Context(), path+".missing", "b", update.InstallOptions{}); err == nil {
		t.Error("Inspect of a missing file succeeded")
	}
}

// Altered payload: store mode touches nothing; stream mode lets nothing through.
func TestAlteredPayload(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	good := build(t, nil, "rootfs", nil, v2)
	v, img, _, entries := recipe(t, good, "full")
	for name, off := range map[string]int64{
		"chunk table":  img.Chunks.Offset + 40,
		"recipe table": img.Full().Table.Offset + 5,
		"first chunk":  entries[1].Offset + 100,
		"sixth chunk":  entries[6].Offset + 100,
		"last chunk":   entries[0].Offset + 100,
	} {
		for _, mode := range modes {
			t.Run(name+" "+mode, func(t *testing.T) {
				data := bytes.Clone(good)
				data[v.PayloadOffset+off] ^= 0x10
				before := noise(3, slotSize)
				r := newRig(t, data, v1, before)
				_, err := r.run(t.Context(), r.inspect(mode), quiet)
				wantName(t, err, update.NameMalformedBundle)
				slot := r.target()
				if mode == ModeStore || strings.HasSuffix(name, "table") {
					if !bytes.Equal(slot, before) {
						t.Fatal("the slot was touched")
					}
					return
				}
				if !bytes.Equal(slot[:firstBlock], make([]byte, firstBlock)) {
					t.Error("the first block is not clear")
				}
				for off := firstBlock; off < slotSize; off += 4096 {
					end := off + 4096
					old := bytes.Equal(slot[off:end], before[off:end])
					if end <= len(v2) && !old && !bytes.Equal(slot[off:end], v2[off:end]) {
						t.Fatalf("block at %d is neither old nor signed", off)
					}
				}
				if n := r.server.often(v.PayloadOffset+entries[6].Offset, 1); n > 3 {
					t.Errorf("a chunk was fetched %d times", n)
				}
			})
		}
	}
}

// A touched source costs the chunks that need it, by policy.
func TestDeltaWithPoisonedSource(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	_, img, _, _ := recipe(t, data, "delta")
	_, _, _, full := recipe(t, data, "full")
	_, _, _, deltas := recipe(t, data, "delta")
	touched := bytes.Clone(v1)
	for i := range 20 {
		touched[6*chunkSize+i*3000] ^= 1
	}
	for _, c := range []struct {
		fallback string
		budget   int64
		want     string
	}{
		{"", 0, ""}, {FallbackFull, 1 << 20, ""}, {FallbackFull, -1, update.NameOverBudget},
		{FallbackWait, 0, update.NameOverBudget}, {FallbackFail, 0, update.NameSourceChanged},
	} {
		for _, mode := range modes {
			t.Run(c.fallback+" "+mode, func(t *testing.T) {
				r := newRig(t, data, touched, nil)
				expected := r.inspect(mode).Download.Expected
				r.o.Fallback, r.o.ByteBudget = c.fallback, c.budget
				if c.budget < 0 {
					r.o.ByteBudget = expected + img.Full().Table.Length + int64(full[6].Length) - 1
				}
				r.restart()
				start := r.server.total()
				rel := r.inspect(mode)
				stats, err := r.run(t.Context(), rel, quiet)
				spent := r.server.total() - start
				if c.want != "" {
					wantName(t, err, c.want)
					if c.want == update.NameSourceChanged && rel.Download.Maximum != expected {
						t.Errorf("maximum %d without a fall-back, want %d", rel.Download.Maximum, expected)
					}
					if c.budget < 0 && spent > r.o.ByteBudget {
						t.Errorf("%d bytes served, budget %d", spent, r.o.ByteBudget)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				r.holds(v2, nil)
				if deltas[6].Kind != bundle.Patch {
					t.Fatal("the test needs a patch for chunk 6")
				}
				// Chunks beside the sixth may have used bytes of it too.
				most := expected + img.Full().Table.Length
				for _, i := range []int{5, 6, 7} {
					most += int64(full[i].Length)
				}
				if least := expected + img.Full().Table.Length + int64(full[6].Length); spent < least || spent > most || spent > rel.Download.Maximum || stats.Fetched != spent {
					t.Errorf("%d bytes served, %d fetched; want %d to %d, and at most %d", spent, stats.Fetched, least, most, rel.Download.Maximum)
				}
			})
		}
	}
}

func TestWhichSource(t *testing.T) {
	t.Parallel()
	v1, v2 := systems()
	data := build(t, nil, "rootfs", v1, v2)
	digest := bundle.Sum(v1).String()
	for name, c := range map[string]struct {
		records []update.SlotRecord
		buildID string
		want    string
	}{
		"factory slot":           {nil, "old-build", "delta"},
		"another factory":        {nil, "x", "full"},
		"nothing known":          {nil, "", "full"},
		"record":                 {[]update.SlotRecord{{Slot: "a", Class: "rootfs", Digest: digest}}, "", "delta"},
		"record beats build id":  {[]update.SlotRecord{{Slot: "a", Class: "rootfs", Digest: bundle.Sum(v2).String()}}, "old-build", "full"},
		"record of other slot":   {[]update.SlotRecord{{Slot: "b", Class: "rootfs", Digest: digest}}, "", "full"},
		"record of other class":  {[]update.SlotRecord{{Slot: "a", Class: "boot", Digest: digest}}, "", "full"},
		"record with a build id": {[]update.SlotRecord{{Slot: "a", Class: "rootfs", BuildID: "old-build"}}, "", "delta"},
	} {
		r := newRig(t, data, v1, nil)
		r.o.BuildID, r.o.Records = c.buildID, func() []update.SlotRecord { return c.records }
		r.restart()
		rel := r.inspect("")
		if got := rel.Images[0].Recipe; got != c.want {
			t.Errorf("%s: recipe %s, want %s", name, got, c.want)
		}
		if d := rel.Download; d.Minimum > d.Expected || d.Expected > d.Maximum || (c.want == "delta") != (d.Expected < d.Maximum) {
			t.Errorf("%s: cost %+v", name, d)
		}
	}
}

func TestAutoMode(t *testing.T) {
	v1, v2 := systems()
	data := build(t, nil, "rootfs", nil, v2)
	r := newRig(t, data, v1, nil)
	rel := r.inspect("")
	need := rel.Download.Expected - (rel.Download.Minimum)
	for budget, want := range map[int64]string{0: ModeStream, need - 1: ModeStream, need: ModeStore} {
		r.o.StoreBudget = budget
		r.restart()
		if got := r.inspect(ModeAuto).Mode; got != want {
			t.Errorf("budget %d for %d bytes: mode %s, want %s", budget, need, got, want)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	v1, _ := systems()
	for name, change := range map[string]func(*Options){
		"no compatible": func(o *Options) { o.Compatible = "" },
		"no slots":      func(o *Options) { o.Slots = nil },
		"no dir":        func(o *Options) { o.Dir = "" },
		"bad fallback":  func(o *Options) { o.Fallback = "maybe" },
		"bad mode":      func(o *Options) { o.Mode = "x" },
		"no policy":     func(o *Options) { o.Policy = nil },
		"one slot":      func(o *Options) { o.Slots["rootfs"] = map[bootctl.Slot]string{"a": "/dev/x"} },
		"same device":   func(o *Options) { o.Slots["boot"] = map[bootctl.Slot]string{"a": "/dev/x", "b": "/dev/x"} },
	} {
		r := newRig(t, nil, v1, nil)
		change(&r.o)
		if _, err := New(r.o); err == nil {
			t.Errorf("%s: New succeeded", name)
		}
	}
}

// ruled is a policy of one rule and one signer, with more lines for each.
func ruled(rule, signer string) func() (*sign.Policy, error) {
	ring := must(sign.NewKeyring(must(newKey().signer.PublicKey()), must(strangeKey().signer.PublicKey())))
	text := fmt.Sprintf("[signers.a]\nid = %q\n%s\n[signers.b]\nid = %q\n[[rule]]\nsigners = [\"a\", \"b\"]\nthreshold = 1\n%s\n",
		newKey().signer.KeyID(), signer, strangeKey().signer.KeyID(), rule)
	return func() (*sign.Policy, error) { return sign.ParsePolicy([]byte(text), ring) }
}

// A key that could state any time proves none, once others end.
func TestTimeThatAReleaseProves(t *testing.T) {
	dated := time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		policy func() (*sign.Policy, error)
		by     sign.Signer
		want   time.Time
	}{
		"key with an end":        {ruled("", "not_after = 2100-01-01T00:00:00Z"), newKey().signer, dated},
		"key without, beside it": {ruled("", "not_after = 2100-01-01T00:00:00Z"), strangeKey().signer, time.Time{}},
		"no key has an end":      {ruled("", ""), strangeKey().signer, dated},
	} {
		t.Run(name, func(t *testing.T) {
			v1, v2 := systems()
			data := build(t, func(s *bundle.Spec) { s.Created, s.Signers = dated, []sign.Signer{tc.by} }, "rootfs", nil, v2)
			r := newRig(t, data, v1, nil)
			r.o.Policy = tc.policy
			r.restart()
			got, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
			if err != nil || !got.TimeFloor.Equal(tc.want) || !got.Created.Equal(dated) {
				t.Errorf("%+v, %v; want the time floor %v", got, err, tc.want)
			}
		})
	}
}

// What the refusals above rest on: with its limits not reached, the policy accepts.
func TestPolicyWithinItsLimits(t *testing.T) {
	data := build(t, func(s *bundle.Spec) { s.Channel = "stable" }, "rootfs", nil, noise(1, 3*chunkSize))
	policy := must(ruled("channels = [\"stable\"]\nclasses = [\"rootfs\"]", "not_after = 9998-01-01T00:00:00Z")())
	n := must(bundle.ParseHeader(data))
	if _, err := bundle.Verify(data[:bundle.HeaderSize+n], policy, time.Now()); err != nil {
		t.Error(err)
	}
}
