// SPDX-License-Identifier: Apache-2.0

package permit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/bundle/canonical"
	"github.com/updaterd/updaterd/sign"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func sample() *Permit {
	return &Permit{Format: Format, ID: "00112233445566778899aabbccddeeff", Compatible: []string{"demo-board"},
		Devices: []string{"4c4c4544-0042"}, Groups: []string{"lab"}, First: 10, Last: 12, Issued: noon, Expires: noon.AddDate(0, 0, 7)}
}

func signer(t testing.TB, name string) sign.Signer {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	s, err := sign.NewSigner(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func keyring(t testing.TB, names ...string) *sign.Keyring {
	t.Helper()
	k := &sign.Keyring{}
	for i, name := range names {
		pub, err := signer(t, name).PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			k, err = sign.NewKeyring(pub)
		} else {
			first, _ := signer(t, names[0]).PublicKey()
			k, err = sign.NewKeyring(first, pub)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func seal(t testing.TB, p *Permit, by ...string) []byte {
	t.Helper()
	var signers []sign.Signer
	for _, name := range by {
		signers = append(signers, signer(t, name))
	}
	b, err := Seal(p, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSealAndVerify(t *testing.T) {
	b := seal(t, sample(), "release")
	policy := keyring(t, "release").Policy(1)
	v, err := Verify(b, policy, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if v.ID != sample().ID || v.First != 10 || len(v.KeyIDs) != 1 || v.KeyIDs[0] != signer(t, "release").KeyID() {
		t.Errorf("%+v", v)
	}
	flipped := bytes.Clone(b)
	flipped[len(flipped)/2] ^= 1
	for name, bad := range map[string][]byte{"stranger's": seal(t, sample(), "mallory"), "flipped": flipped, "cut": b[:len(b)-1],
		"longer than allowed": append(bytes.Clone(b), make([]byte, MaxEnvelope)...)} {
		if v, err := Verify(bad, policy, time.Time{}); err == nil {
			t.Errorf("%s: %+v is believed", name, v)
		}
	}
	if _, err := Verify(b, nil, time.Time{}); !errors.Is(err, sign.ErrUntrusted) {
		t.Errorf("without a policy: %v", err)
	}
}

// A manifest is no permit, whoever signed it.
func TestPayloadTypeConfusion(t *testing.T) {
	payload, err := canonical.Marshal(sample())
	if err != nil {
		t.Fatal(err)
	}
	b, err := sign.Seal(bundle.PayloadType, payload, signer(t, "release"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := Verify(b, keyring(t, "release").Policy(1), time.Time{}); !errors.Is(err, sign.ErrPayloadType) {
		t.Errorf("%+v, %v", v, err)
	}
}

// Rules for all classes count for permits, rules for images do not, and one for
// permits adds to those for all.
func TestRulesForPermits(t *testing.T) {
	ring := keyring(t, "release", "support")
	signers := fmt.Sprintf("[signers.release]\nid = %q\nnot_after = 2027-01-01T00:00:00Z\n[signers.support]\nid = %q\n",
		signer(t, "release").KeyID(), signer(t, "support").KeyID())
	rule := func(classes, by string) string {
		return classes + "\nsigners = [\"" + by + "\"]\nthreshold = 1\n"
	}
	const all, images, permits = "[[rule]]", "[[rule]]\nclasses = [\"rootfs\"]", "[[rule]]\nclasses = [\"floor.permit\"]"
	for name, tc := range map[string]struct {
		rules string
		by    []string
		floor time.Time
		want  string
	}{
		"for all":                    {rule(all, "release"), []string{"release"}, noon, ""},
		"for images alone":           {rule(images, "release"), []string{"release"}, noon, "no rule for"},
		"for permits, by its signer": {rule(images, "release") + rule(permits, "support"), []string{"support"}, noon, ""},
		"for permits, by another":    {rule(images, "release") + rule(permits, "support"), []string{"release"}, noon, "signed by 0 of the 1 signers of rule 2"},
		"for all and for permits":    {rule(all, "release") + rule(permits, "support"), []string{"support"}, noon, "signed by 0 of the 1 signers of rule 1"},
		"for all and permits, both":  {rule(all, "release") + rule(permits, "support"), []string{"release", "support"}, noon, ""},
		"another key goes on longer": {"[[rule]]\nsigners = [\"release\", \"support\"]\nthreshold = 1\n", []string{"release"}, noon.AddDate(2, 0, 0), "was valid until"},
	} {
		t.Run(name, func(t *testing.T) {
			policy, err := sign.ParsePolicy([]byte(signers+tc.rules), ring)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Verify(seal(t, sample(), tc.by...), policy, tc.floor)
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want %q", err, tc.want)
			}
		})
	}
	v, err := Verify(seal(t, sample(), "release"), ring.Policy(1), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	denied, err := sign.ParsePolicy([]byte(fmt.Sprintf("denied = [%q]\n", v.Digest)+signers+rule(all, "release")), ring)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(seal(t, sample(), "release"), denied, time.Time{}); !errors.Is(err, sign.ErrUntrusted) {
		t.Errorf("a denied permit: %v", err)
	}
}

func TestAllows(t *testing.T) {
	for name, tc := range map[string]struct {
		change   func(p *Permit)
		device   Device
		sequence uint64
		now      time.Time
		want     string
	}{
		"device":           {},
		"first":            {sequence: 10},
		"last":             {sequence: 12},
		"at its end":       {now: noon.AddDate(0, 0, 7)},
		"before it began":  {now: noon.AddDate(-1, 0, 0)}, // a clock that is behind
		"group":            {device: Device{Compatible: "demo-board", Groups: []string{"beta", "lab"}}},
		"another device":   {device: Device{Compatible: "demo-board", ID: "other"}, want: `for other devices than "other"`},
		"no id, no group":  {device: Device{Compatible: "demo-board"}, want: "for other devices"},
		"no id, no device": {change: func(p *Permit) { p.Devices = nil }, device: Device{Compatible: "demo-board"}, want: "for other devices"},
		"another group":    {device: Device{Compatible: "demo-board", Groups: []string{"4c4c4544-0042"}}, want: "none of its groups"},
		"id like a group":  {device: Device{Compatible: "demo-board", ID: "lab"}, want: "for other devices"},
		"another product":  {device: Device{Compatible: "demo-2", ID: "4c4c4544-0042"}, want: "it is for demo-board, this is demo-2"},
		"below its range":  {sequence: 9, want: "sequences 10 to 12, the release has 9"},
		"above its range":  {sequence: 13, want: "the release has 13"},
		"past its end":     {now: noon.AddDate(0, 0, 8), want: "it ended at 2026-02-07T12:00:00Z, and it is at least 2026-02-08"},
	} {
		t.Run(name, func(t *testing.T) {
			p := sample()
			if tc.change != nil {
				tc.change(p)
			}
			if tc.device.Compatible == "" {
				tc.device = Device{Compatible: "demo-board", ID: "4c4c4544-0042"}
			}
			if tc.sequence == 0 {
				tc.sequence = 11
			}
			if tc.now.IsZero() {
				tc.now = noon
			}
			err := p.Allows(tc.device, tc.sequence, tc.now)
			if (err == nil) != (tc.want == "") || err != nil && (!errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v; want %q", err, tc.want)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for name, change := range map[string]func(p *Permit){
		"format":            func(p *Permit) { p.Format = 2 },
		"no id":             func(p *Permit) { p.ID = "" },
		"short id":          func(p *Permit) { p.ID = "00ff" },
		"upper case id":     func(p *Permit) { p.ID = strings.ToUpper(p.ID) },
		"no compatible":     func(p *Permit) { p.Compatible = nil },
		"for nobody":        func(p *Permit) { p.Devices, p.Groups = nil, nil },
		"empty device":      func(p *Permit) { p.Devices = []string{""} },
		"device with space": func(p *Permit) { p.Devices = []string{"a b"} },
		"device twice":      func(p *Permit) { p.Devices = []string{"a", "a"} },
		"long group":        func(p *Permit) { p.Groups = []string{strings.Repeat("g", 65)} },
		"too many devices": func(p *Permit) {
			for i := range MaxNames {
				p.Devices = append(p.Devices, fmt.Sprint(i))
			}
		},
		"empty range":     func(p *Permit) { p.Last = 9 },
		"ends at once":    func(p *Permit) { p.Expires = p.Issued },
		"half a second":   func(p *Permit) { p.Expires = p.Expires.Add(time.Second / 2) },
		"time with zone":  func(p *Permit) { p.Issued = p.Issued.In(time.FixedZone("", 3600)) },
		"before the time": func(p *Permit) { p.Issued = time.Time{} },
	} {
		p := sample()
		change(p)
		b, err := canonical.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Parse(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if _, err := Seal(p, signer(t, "release")); err == nil {
			t.Errorf("%s: it was signed", name)
		}
	}
}

func FuzzPermit(f *testing.F) {
	good, err := canonical.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte(`{"format":1}`))
	f.Add(bytes.Replace(good, []byte(`"devices":["4c4c4544-0042"],`), nil, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("%v is not ErrMalformed", err)
			}
			return
		}
		// What is read is exactly what would be signed, and it is for somebody.
		again, err := canonical.Marshal(p)
		if err != nil || !bytes.Equal(again, b) || len(p.Devices)+len(p.Groups) == 0 || p.First > p.Last {
			t.Errorf("%s is read as %+v, %v", b, p, err)
		}
		if err := p.Allows(Device{Compatible: p.Compatible[0]}, p.First, p.Issued); err == nil {
			t.Errorf("%s allows a device without an id and groups", b)
		}
	})
}
