// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pubPEM is a public key as a file has it.
func pubPEM(t testing.TB, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// loadFiles is a keyring of the files.
func loadFiles(t testing.TB, files map[string][]byte) *Keyring {
	t.Helper()
	dir := t.TempDir()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	k, err := LoadKeyring(dir)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// team is a keyring of plain keys, and who has the private ones.
type team struct {
	keyring *Keyring
	signers map[string]Signer
}

func newTeam(t testing.TB, names ...string) *team {
	t.Helper()
	files := make(map[string][]byte)
	x := &team{signers: make(map[string]Signer)}
	for _, name := range names {
		s, pub := newPair(t, Ed25519)
		x.signers[name] = s
		files[name+".pub"] = pubPEM(t, pub)
	}
	x.keyring = loadFiles(t, files)
	return x
}

// policy makes one of rules; ID(name) in it stands for a key id.
func (x *team) policy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(x.fill(text)), x.keyring)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (x *team) fill(text string) string {
	for name, s := range x.signers {
		text = strings.ReplaceAll(text, "ID("+name+")", s.KeyID())
	}
	return text
}

func (x *team) seal(t testing.TB, names ...string) []byte {
	t.Helper()
	var signers []Signer
	for _, name := range names {
		signers = append(signers, x.signers[name])
	}
	return seal(t, signers...)
}

func seal(t testing.TB, signers ...Signer) []byte {
	t.Helper()
	b, err := Seal(testType, []byte("payload"), signers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func claim(c Claims) func([]byte) (Claims, error) {
	return func([]byte) (Claims, error) { return c, nil }
}

func year(n int) time.Time { return time.Date(n, 1, 1, 0, 0, 0, 0, time.UTC) }

const threeSigners = `
[signers.alice]
file = "alice.pub"
[signers.bob]
id = "ID(bob)"
[signers.carol]
file = "carol.pub"
`

func TestRulesOfAPolicy(t *testing.T) {
	x := newTeam(t, "alice", "bob", "carol", "dave")
	const byClass = threeSigners + `
[[rule]]
classes = ["rootfs", "app"]
channels = ["stable", "beta"]
signers = ["alice", "bob"]
threshold = 1

[[rule]]
classes = ["bootloader"]
signers = ["alice", "bob", "carol"]
threshold = 2
`
	const addsUp = threeSigners + `
[[rule]]
signers = ["alice", "bob"]
threshold = 1

[[rule]]
channels = ["stable"]
signers = ["carol"]
threshold = 1
`
	for _, tc := range []struct {
		name, policy, by, channel, classes string
		want                               string // of the error; "" = accepted
	}{
		{"one class", byClass, "alice", "stable", "rootfs", ""},
		{"its other key", byClass, "bob", "beta", "app", ""},
		{"two classes, one rule", byClass, "bob", "beta", "rootfs app", ""},
		{"a key of another rule", byClass, "carol", "stable", "rootfs", "signed by 0 of the 2 signers of rule 1, classes rootfs app, channels stable beta, need 1"},
		{"a key of no rule", byClass, "dave", "stable", "rootfs", "need 1"},
		{"another channel", byClass, "alice", "nightly", "rootfs", `no rule for images of class "rootfs" in channel "nightly"`},
		{"no channel", byClass, "alice", "", "rootfs", "without a channel"},
		{"a rule for every channel", byClass, "alice carol", "", "bootloader", ""},
		{"threshold of its class", byClass, "alice", "", "bootloader", "signed by 1 of the 3 signers of rule 2"},
		{"both classes' rules", byClass, "alice carol", "stable", "rootfs bootloader", ""},
		{"one class's rule only, of two", byClass, "alice", "stable", "rootfs bootloader", "need 2"},
		{"the other class's rule only", byClass, "bob carol", "nightly", "rootfs bootloader", "no rule for"},
		{"a class without a rule", byClass, "alice bob carol", "stable", "rootfs kernel", `no rule for images of class "kernel"`},
		{"no class", byClass, "alice bob carol", "stable", "", "no rule for payloads that are for no class"},
		{"no class, rule for all", addsUp, "alice", "", "", ""},
		{"rules add up", addsUp, "alice carol", "stable", "rootfs", ""},
		{"a rule is never weakened by another one", addsUp, "alice bob", "stable", "rootfs", "rule 2"},
		{"nor the other way round", addsUp, "carol", "stable", "rootfs", "rule 1"},
		{"other channels need less", addsUp, "bob", "beta", "rootfs", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := x.policy(t, tc.policy)
			env := x.seal(t, strings.Fields(tc.by)...)
			v, err := p.Verify(env, testType, time.Time{}, claim(Claims{Created: year(2026), Channel: tc.channel, Classes: strings.Fields(tc.classes)}))
			checkVerdict(t, v, err, tc.want)
		})
	}
}

func checkVerdict(t *testing.T, v *Verified, err error, want string) {
	t.Helper()
	if want == "" {
		if err != nil || string(v.Payload) != "payload" || len(v.KeyIDs) == 0 {
			t.Fatalf("Verify = %+v, %v; want success", v, err)
		}
		return
	}
	if !errors.Is(err, ErrUntrusted) || v != nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("Verify = %+v, %v; want ErrUntrusted that says %q", v, err, want)
	}
}

// The holder of a stolen key chooses the time that it signs, but not the time that
// the device knows has come.
func TestValidityOfKeys(t *testing.T) {
	x := newTeam(t, "alice", "bob", "carol")
	p := x.policy(t, threeSigners[:strings.Index(threeSigners, "[signers.bob]")]+`
not_before = 2025-01-01T00:00:00Z
not_after = 2028-01-01T00:00:00Z
[signers.bob]
id = "ID(bob)"
not_before = 2027-01-01T00:00:00+00:00
[signers.carol]
file = "carol.pub"
[[rule]]
signers = ["alice", "bob", "carol"]
threshold = 1
`)
	for _, tc := range []struct {
		name, by       string
		created, floor time.Time
		want           string
	}{
		{"within", "alice", year(2026), time.Time{}, ""},
		{"on its first day", "alice", year(2025), time.Time{}, ""},
		{"on its last", "alice", year(2028), year(2028), ""},
		{"before", "alice", year(2024), time.Time{}, "valid from 2025-01-01T00:00:00Z on, and this is of 2024"},
		{"after", "alice", year(2029), time.Time{}, "was valid until 2028-01-01T00:00:00Z, and this is of 2029"},
		{"backdated", "alice", year(2026), year(2029), "was valid until 2028-01-01T00:00:00Z, and it is at least 2029"},
		{"older than the floor, key still valid there", "alice", year(2026), year(2027), ""},
		{"tells no time", "alice", time.Time{}, time.Time{}, "tells no time"},
		{"without an end, before", "bob", year(2026), year(2029), "valid from 2027"},
		{"without an end, long after", "bob", year(2040), year(2039), ""},
		{"without limits", "carol", year(1999), year(2039), ""},
		{"without limits, tells no time", "carol", time.Time{}, year(2039), ""},
		{"one expired key beside a good one", "alice carol", year(2029), time.Time{}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := p.Verify(x.seal(t, strings.Fields(tc.by)...), testType, tc.floor, claim(Claims{Created: tc.created}))
			checkVerdict(t, v, err, tc.want)
			if tc.name == "one expired key beside a good one" && (len(v.KeyIDs) != 1 || v.KeyIDs[0] != x.signers["carol"].KeyID()) {
				t.Errorf("counted %q", v.KeyIDs)
			}
		})
	}
}

func TestKeyRevokedAfterSigning(t *testing.T) {
	x := newTeam(t, "alice", "bob", "carol")
	env := x.seal(t, "alice", "bob")
	const rule = "[[rule]]\nsigners = [\"alice\", \"bob\", \"carol\"]\nthreshold = 2\n"
	v, err := x.policy(t, threeSigners+rule).Verify(env, testType, time.Time{}, nil)
	checkVerdict(t, v, err, "")
	later := x.policy(t, "revoked = [\"ID(bob)\"]\n"+threeSigners+rule)
	v, err = later.Verify(env, testType, time.Time{}, nil)
	checkVerdict(t, v, err, "signed by 1 of the 3 signers of rule 1, need 2: key "+x.signers["bob"].KeyID()+" is revoked")
}

func TestDeniedRelease(t *testing.T) {
	x := newTeam(t, "alice")
	p := x.policy(t, fmt.Sprintf("denied = [%q]\n[signers.alice]\nfile = \"alice.pub\"\n[[rule]]\nsigners = [\"alice\"]\nthreshold = 1\n", payloadDigest([]byte("payload"))))
	read := false
	v, err := p.Verify(x.seal(t, "alice"), testType, time.Time{}, func([]byte) (Claims, error) { read = true; return Claims{}, nil })
	checkVerdict(t, v, err, "the policy denies sha256:")
	if read {
		t.Error("it was read all the same")
	}
	other, err := Seal(testType, []byte("other"), x.signers["alice"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Verify(other, testType, time.Time{}, nil); err != nil {
		t.Error(err)
	}
}

// A payload is handed out for reading only once enough keys of a rule signed it.
func TestNothingIsParsedBeforeItIsVerified(t *testing.T) {
	x := newTeam(t, "alice", "bob", "carol")
	two := x.policy(t, threeSigners+"[[rule]]\nsigners = [\"alice\", \"bob\"]\nthreshold = 2\n")
	for by, want := range map[string]bool{"alice": false, "carol": false, "alice carol": false, "alice bob": true} {
		read := false
		_, err := two.Verify(x.seal(t, strings.Fields(by)...), testType, time.Time{}, func(b []byte) (Claims, error) {
			read = true
			return Claims{}, nil
		})
		if read != want || (err == nil) != want {
			t.Errorf("signed by %s: read = %v, %v", by, read, err)
		}
	}
	unreadable := errors.New("unreadable")
	v, err := two.Verify(x.seal(t, "alice", "bob"), testType, time.Time{}, func([]byte) (Claims, error) { return Claims{}, unreadable })
	if !errors.Is(err, unreadable) || v != nil {
		t.Errorf("Verify = %v, %v; want the reader's error", v, err)
	}
}

func TestZeroPolicyBelievesNobody(t *testing.T) {
	x := newTeam(t, "alice")
	for name, p := range map[string]*Policy{"nil": nil, "zero": {}, "of no keyring": (*Keyring)(nil).Policy(1), "of an empty one": new(Keyring).Policy(1)} {
		v, err := p.Verify(x.seal(t, "alice"), testType, time.Time{}, nil)
		if !errors.Is(err, ErrUntrusted) || v != nil {
			t.Errorf("%s: Verify = %v, %v; want ErrUntrusted", name, v, err)
		}
	}
	if v, err := x.keyring.Policy(0).Verify(x.seal(t, "alice"), testType, time.Time{}, nil); err == nil || v != nil {
		t.Errorf("threshold 0: Verify = %v, %v; want an error", v, err)
	}
}

// Rotation: a device that knows A takes B by a release of A's, and never by one of
// B's alone; the refusal tells the step that was left out.
func TestRotationNeedsTheStepBetween(t *testing.T) {
	a, aPub := newPair(t, ECDSAP256)
	b, bPub := newPair(t, Ed25519)
	v1, v2 := newKeyring(t, aPub), newKeyring(t, aPub, bPub) // what the images bring
	v3 := newKeyring(t, bPub)
	for _, tc := range []struct {
		name   string
		device *Keyring
		by     []Signer
		ok     bool
	}{
		{"v1 takes v2, signed by A", v1, []Signer{a}, true},
		{"v1 takes v2, signed by both", v1, []Signer{a, b}, true},
		{"v1 refuses v3, signed by B", v1, []Signer{b}, false},
		{"v2 takes v3, signed by B", v2, []Signer{b}, true},
		{"v3 takes v4, signed by B", v3, []Signer{b}, true},
		{"v3 refuses what A signs", v3, []Signer{a}, false},
	} {
		v, err := tc.device.Verify(seal(t, tc.by...), testType, 1)
		if !tc.ok {
			checkVerdict(t, v, err, "key "+tc.by[0].KeyID()+" is not known here; if it is a new one, install a release first that brings it and is signed by a key known here")
		} else if err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// An attacker's key id is not repeated unless it looks like one.
func TestKeyIDsInMessagesAreKeyIDs(t *testing.T) {
	x := newTeam(t, "alice")
	m, _ := newPair(t, Ed25519)
	env := edit(t, seal(t, m), func(e *envelope) { e.Signatures[0].KeyID = "all is well\x1b[2J" })
	_, err := x.keyring.Verify(env, testType, 1)
	if err == nil || strings.Contains(err.Error(), "well") || !strings.Contains(err.Error(), "no key known here made it") {
		t.Errorf("Verify: %v", err)
	}
}

func TestPolicyFileFailsClosed(t *testing.T) {
	x := newTeam(t, "alice", "bob", "carol")
	const good = threeSigners + "[[rule]]\nsigners = [\"alice\"]\nthreshold = 1\n"
	id := x.signers["alice"].KeyID()
	for _, tc := range []struct{ name, text, want string }{
		{"good", good, ""},
		{"empty", "", "0 rules"},
		{"signers and no rule", threeSigners, "0 rules"},
		{"no TOML", "[[", "line 1"},
		{"binary", "\x00\xff", ""},
		{"unknown key", "colour = \"red\"\n" + good, "unknown key colour"},
		{"another case", "Revoked = []\n" + good, "unknown key Revoked"},
		{"unknown key of a signer", good + "[signers.dave]\nfile = \"alice.pub\"\nsubjects = \"x\"\n", "unknown key signers.dave.subjects"},
		{"unknown key of a rule", good + "weight = 1\n", "unknown key rule.weight"},
		{"threshold 0", strings.Replace(good, "threshold = 1", "threshold = 0", 1), "rule 1: threshold is 0"},
		{"no threshold", strings.Replace(good, "threshold = 1", "", 1), "rule 1: threshold is 0"},
		{"threshold -1", strings.Replace(good, "threshold = 1", "threshold = -1", 1), "threshold is -1"},
		{"threshold above the signers", strings.Replace(good, "threshold = 1", "threshold = 2", 1), "no release could be installed"},
		{"threshold of revoked keys", "revoked = [\"" + id + "\"]\n" + good, "no release could be installed"},
		{"threshold is a text", strings.Replace(good, "threshold = 1", "threshold = \"1\"", 1), "threshold"},
		{"rule without signers", threeSigners + "[[rule]]\nthreshold = 1\n", "no release could be installed"},
		{"unknown signer", strings.Replace(good, `["alice"]`, `["mallory"]`, 1), `no signer "mallory"`},
		{"signer twice", strings.Replace(good, `["alice"]`, `["alice", "alice"]`, 1), "twice"},
		{"no classes", good + "classes = []\n", "classes is empty"},
		{"no channels", good + "channels = []\n", "channels is empty"},
		{"empty class", good + "classes = [\"\"]\n", "want letters"},
		{"class with a slash", good + "classes = [\"a/b\"]\n", "want letters"},
		{"class with a NUL", good + "classes = [\"a\\u0000\"]\n", "want letters"},
		{"signer's name with a slash", good + "[signers.\"a/b\"]\nfile = \"alice.pub\"\n", "a/b"},
		{"file of elsewhere", strings.Replace(good, "alice.pub", "../alice.pub", 1), "has no file"},
		{"file with a NUL", strings.Replace(good, "alice.pub", "alice.pub\\u0000", 1), "has no file"},
		{"unknown file", strings.Replace(good, "alice.pub", "dave.pub", 1), "has no file"},
		{"unknown id", strings.Replace(good, "ID(bob)", strings.Repeat("0", 64), 1), "no key with the id"},
		{"file and id", strings.Replace(good, `file = "alice.pub"`, "file = \"alice.pub\"\nid = \"ID(alice)\"", 1), "either file or id"},
		{"neither", strings.Replace(good, `file = "alice.pub"`, "", 1), "either file or id"},
		{"a key twice", strings.Replace(good, "carol.pub", "alice.pub", 1), `same key as signer "alice"`},
		{"subject of a key", strings.Replace(good, `file = "alice.pub"`, "file = \"alice.pub\"\nsubject = \"CN=x\"", 1), "subject is for certificates"},
		{"validity the wrong way round", strings.Replace(good, `file = "alice.pub"`, "file = \"alice.pub\"\nnot_before = 2028-01-01T00:00:00Z\nnot_after = 2027-01-01T00:00:00Z", 1), "not later"},
		{"a day is no time", strings.Replace(good, `file = "alice.pub"`, "file = \"alice.pub\"\nnot_after = 2027-01-01", 1), "full time with a zone"},
		{"a time without a zone", strings.Replace(good, `file = "alice.pub"`, "file = \"alice.pub\"\nnot_after = 2027-01-01T00:00:00", 1), "full time with a zone"},
		{"revoked is no id", "revoked = [\"alice\"]\n" + good, "no key id"},
		{"revoked in capitals", "revoked = [\"" + strings.ToUpper(id) + "\"]\n" + good, "no key id"},
		{"denied is no digest", "denied = [\"" + id + "\"]\n" + good, "no digest"},
		{"too long", good + strings.Repeat("#", maxPolicy), "more than"},
		{"too many rules", threeSigners + strings.Repeat("[[rule]]\nsigners = [\"alice\"]\nthreshold = 1\n", maxRules+1), "33 rules"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := ParsePolicy([]byte(x.fill(tc.text)), x.keyring)
			if tc.name == "good" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if p != nil || !errors.Is(err, ErrPolicy) || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("ParsePolicy = %v, %v; want an error that says %q", p, err, tc.want)
			}
		})
	}
	if p, err := LoadPolicy(filepath.Join(t.TempDir(), "none"), x.keyring); !errors.Is(err, os.ErrNotExist) || p != nil {
		t.Errorf("LoadPolicy of no file = %v, %v", p, err)
	}
}

// FuzzParsePolicy: what is accepted has rules that can be met, and says the same twice.
func FuzzParsePolicy(f *testing.F) {
	x := newTeam(f, "alice", "bob", "carol")
	f.Add([]byte(x.fill(threeSigners + "[[rule]]\nsigners = [\"alice\", \"bob\"]\nthreshold = 2\nclasses = [\"rootfs\"]\n")))
	f.Add([]byte("revoked = []\ndenied = []\n[signers.a]\nfile = \"alice.pub\"\nnot_after = 2029-01-01T00:00:00Z\n[[rule]]\nsigners = [\"a\"]\nchannels = [\"stable\"]\nthreshold = 1\n"))
	env := x.seal(f, "alice", "bob", "carol")
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePolicy(b, x.keyring)
		if err != nil {
			if p != nil || !errors.Is(err, ErrPolicy) {
				t.Fatalf("ParsePolicy = %v, %v", p, err)
			}
			return
		}
		for _, r := range p.rules {
			if r.threshold < 1 || r.threshold > len(r.signers) {
				t.Fatalf("accepted a rule with threshold %d of %d", r.threshold, len(r.signers))
			}
		}
		if v, err := p.Verify(env, testType, time.Time{}, nil); (err == nil) != (v != nil) {
			t.Fatalf("Verify = %v, %v", v, err)
		}
	})
}

// TestEnd: a class is signed for until too few of a rule's signers are left, and of
// several rules the last one counts.
func TestEnd(t *testing.T) {
	at := func(year int) time.Time { return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC) }
	key := func(id string, end time.Time) party { return party{member: member{key: id}, notAfter: end} }
	one, two, never := key("1", at(2030)), key("2", at(2040)), key("3", time.Time{})
	rule1 := func(threshold int, signers ...party) rule { return rule{threshold: threshold, signers: signers} }
	for name, c := range map[string]struct {
		p    Policy
		want time.Time
	}{
		"any of two":              {Policy{rules: []rule{rule1(1, one, two)}}, at(2040)},
		"both of two":             {Policy{rules: []rule{rule1(2, one, two)}}, at(2030)},
		"one has no end":          {Policy{rules: []rule{rule1(1, one, never)}}, time.Time{}},
		"both, one has no end":    {Policy{rules: []rule{rule1(2, never, two)}}, at(2040)},
		"the later of two rules":  {Policy{rules: []rule{rule1(1, one), rule1(1, two)}}, at(2040)},
		"a revoked key":           {Policy{rules: []rule{rule1(1, one, two)}, revoked: []string{"2"}}, at(2030)},
		"another class":           {Policy{rules: []rule{{threshold: 1, signers: []party{one}, classes: []string{"other"}}}}, time.Time{}},
		"a rule that cannot hold": {Policy{rules: []rule{rule1(2, two), rule1(1, one)}}, at(2030)},
	} {
		if got := c.p.End("rootfs"); !got.Equal(c.want) {
			t.Errorf("%s: %v; want %v", name, got, c.want)
		}
	}
}
