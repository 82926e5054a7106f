// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign/logtest"
)

func TestLogEntries(t *testing.T) {
	for _, signerAlgorithm := range []string{ECDSAP256, Ed25519} {
		for _, logAlgorithm := range []string{ECDSAP256, Ed25519} {
			alice, pub := newPair(t, signerAlgorithm)
			env := seal(t, alice)
			s := subjectOfSignature(t, env, 0, pub)
			l := newLog(t, logAlgorithm)
			p := logPolicy(t, map[string]crypto.PublicKey{"alice": pub}, map[string]*logtest.Log{"log": l}, aliceLogged)
			for kind, body := range map[string]func() []byte{"hashedrekord 0.0.1": s.hashed1, "hashedrekord 0.0.2": s.hashed2, "dsse 0.0.1": s.dsse1} {
				// Every place in trees of every shape, that of one leaf among them.
				for size := 1; size <= 9; size++ {
					for at := range size {
						l.Leaves = nil
						l.Fill(at)
						l.Add(body())
						l.Fill(size - at - 1)
						v, err := p.Verify(withEntry(t, env, entryOf(l, at)), testType, time.Time{}, nil)
						if err != nil {
							t.Fatalf("%s, %s, log with %s, entry %d of %d: %v", signerAlgorithm, kind, logAlgorithm, at, size, err)
						}
						want := LogEntry{KeyID: alice.KeyID(), Log: "log", Origin: testOrigin, Index: int64(at), Size: int64(size)}
						if len(v.Entries) != 1 || v.Entries[0] != want {
							t.Fatalf("Entries = %+v; want %+v", v.Entries, want)
						}
					}
				}
			}
		}
	}
}

func TestLogAttacks(t *testing.T) {
	alice, alicePub := newPair(t, ECDSAP256)
	mallory, malloryPub := newPair(t, ECDSAP256)
	env, again, byMallory := seal(t, alice), seal(t, alice), seal(t, mallory)
	other, err := Seal(testType, []byte("another payload"), alice)
	if err != nil {
		t.Fatal(err)
	}
	honest := subjectOfSignature(t, env, 0, alicePub)
	l := newLog(t, ECDSAP256)
	l.Fill(3)
	at := l.Add(honest.hashed1())
	l.Fill(2)
	strange := newLog(t, ECDSAP256) // another key, the same origin
	strange.Leaves = slices.Clone(l.Leaves)
	elsewhere := logtest.New("log.example.com - 43", l.Key) // the same key, another origin
	elsewhere.Leaves = slices.Clone(l.Leaves)
	// added is an entry about something else that the log has taken, and proves.
	added := func(body []byte) wireEntry {
		grown := logtest.New(l.Origin, l.Key)
		grown.Leaves = slices.Clone(l.Leaves)
		return entryOf(grown, grown.Add(body))
	}
	altered := func(change func(s *subject)) subject {
		s := honest
		change(&s)
		return s
	}
	change := func(f func(e *wireEntry)) wireEntry {
		e := entryOf(l, at)
		e.Hashes = slices.Clone(e.Hashes)
		f(&e)
		return e
	}
	note := func(text string) wireEntry {
		return change(func(e *wireEntry) { e.Checkpoint = b64(l.Sign(text)) })
	}
	flip := func(s string) string {
		b, err := decode(s)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		return b64(b)
	}
	lines := strings.Split(l.Text(len(l.Leaves)), "\n")
	p := logPolicy(t, map[string]crypto.PublicKey{"alice": alicePub}, map[string]*logtest.Log{"log": l}, aliceLogged)

	for _, tc := range []struct {
		name  string
		entry wireEntry
		want  string // of the error; "" = accepted
	}{
		{"honest", entryOf(l, at), ""},
		{"honest, with lines after the root", note(l.Text(len(l.Leaves)) + "Timestamp: 1688058655037355364\n"), ""},
		{"honest, with signatures of witnesses", change(func(e *wireEntry) {
			b, _ := decode(e.Checkpoint)
			text, sig, _ := strings.Cut(string(b), "\n\n")
			e.Checkpoint = b64([]byte(text + "\n\n— witness.example " + b64([]byte("1234 not a signature")) + "\n" + sig))
		}), ""},

		{"log entry for another artifact", added(subjectOfSignature(t, other, 0, alicePub).hashed1()), "about something else than this payload"},
		{"log entry for another signature of the same payload", added(subjectOfSignature(t, again, 0, alicePub).hashed1()), "about another signature"},
		{"log entry of another signer", added(subjectOfSignature(t, byMallory, 0, malloryPub).hashed1()), "about another signature"},
		{"log entry that names another key", added(altered(func(s *subject) { s.pem, s.der = pubPEM(t, malloryPub), nil }).hashed1()), "names another key"},
		{"log entry that names another key, version 2", added(altered(func(s *subject) { s.der, _ = x509.MarshalPKIXPublicKey(malloryPub) }).hashed2()), "names another key"},
		{"log entry that names another key, dsse", added(altered(func(s *subject) { s.pem = pubPEM(t, malloryPub) }).dsse1()), "names another key"},
		{"log entry that names another digest", added(altered(func(s *subject) { s.payload = []byte("another payload") }).hashed1()), "about something else than this payload"},
		{"log entry that names another digest, version 2", added(altered(func(s *subject) { s.payload = []byte("another payload") }).hashed2()), "about something else than this payload"},
		{"log entry that names another digest, dsse", added(altered(func(s *subject) { s.payload = []byte("another payload") }).dsse1()), "about something else than this payload"},
		{"log entry for an envelope with two signatures", added(altered(func(s *subject) { s.signatures = 2 }).dsse1()), "no entry for one signature"},
		{"envelope digest that is none", added(altered(func(s *subject) { s.shown = strings.Repeat("AB", 32) }).dsse1()), "no entry for one signature"},
		{"envelope digest that hides a member", added(bytes.Replace(honest.dsse1(), []byte(honest.shown), fmt.Appendf(nil, `%-64s`, `","value":"`), 1)), "no entry for one signature"},
		{"log entry in another spelling", added(bytes.Replace(honest.hashed1(), []byte(`{`), []byte(`{ `), 1)), "no entry for one signature"},
		{"log entry with a second spec", added(bytes.Replace(honest.hashed1(), []byte(`"spec"`), []byte(`"spec":{},"spec"`), 1)), "no entry for one signature"},
		{"log entry of another version", added(bytes.Replace(honest.hashed1(), []byte(`0.0.1`), []byte(`0.0.3`), 1)), "no entry for one signature"},
		{"an entry that is no JSON", added([]byte("x")), "about something else"},

		{"proof for another leaf", change(func(e *wireEntry) { e.Index-- }), "do not lead to the root"},
		{"proof of another leaf", change(func(e *wireEntry) { e.Hashes = proofOf(l, at-1) }), "do not lead to the root"},
		{"body of another leaf", change(func(e *wireEntry) { e.Body = b64(honest.hashed2()) }), "do not lead to the root"},
		{"a node passed off as a leaf", change(func(e *wireEntry) { e.Index, e.Hashes = 1, e.Hashes[1:] }), "do not lead to the root"},
		{"proof with a hash less", change(func(e *wireEntry) { e.Hashes = e.Hashes[:len(e.Hashes)-1] }), "do not lead to the root"},
		{"proof with a hash more", change(func(e *wireEntry) { e.Hashes = append(e.Hashes, e.Hashes[0]) }), "do not lead to the root"},
		{"proof with no hash", change(func(e *wireEntry) { e.Hashes = nil }), "do not lead to the root"},
		{"proof with a hash altered", change(func(e *wireEntry) { e.Hashes[1] = flip(e.Hashes[1]) }), "do not lead to the root"},
		{"proof to an older tree", change(func(e *wireEntry) { e.Checkpoint = b64(l.Sign(l.Text(at + 1))) }), "do not lead to the root"},
		{"tree smaller than the index", change(func(e *wireEntry) { e.Checkpoint = b64(l.Sign(l.Text(at))) }), "its index is 3, and the checkpoint is of 3 entries"},
		{"index beyond the tree", change(func(e *wireEntry) { e.Index = 1 << 62 }), "the checkpoint is of 6 entries"},

		{"checkpoint by an unknown log key", entryOf(strange, at), "not signed with the key of log log"},
		{"checkpoint of another origin", entryOf(elsewhere, at), `no log "log.example.com - 43"`},
		{"checkpoint with another root", note(lines[0] + "\n" + lines[1] + "\n" + flip(lines[2]) + "\n"), "do not lead to the root"},
		{"checkpoint whose root was altered", change(func(e *wireEntry) {
			b, _ := decode(e.Checkpoint)
			e.Checkpoint = b64(bytes.Replace(b, []byte(lines[2]), []byte(flip(lines[2])), 1))
		}), "not signed with the key"},
		{"checkpoint whose size was altered", change(func(e *wireEntry) {
			b, _ := decode(e.Checkpoint)
			e.Checkpoint = b64(bytes.Replace(b, []byte("\n6\n"), []byte("\n7\n"), 1))
		}), "not signed with the key"},
		{"checkpoint whose signature was altered", change(func(e *wireEntry) {
			b, _ := decode(e.Checkpoint)
			at := bytes.LastIndexByte(b, ' ')
			e.Checkpoint = b64(append(b[:at+1], flip(strings.TrimSpace(string(b[at+1:])))+"\n"...))
		}), "not signed with the key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v, err := p.Verify(withEntry(t, env, tc.entry), testType, time.Time{}, nil)
			checkVerdict(t, v, err, tc.want)
			if tc.want == "" && len(v.Entries) != 1 {
				t.Errorf("Entries = %+v", v.Entries)
			}
		})
	}
	t.Run("no log entry", func(t *testing.T) {
		v, err := p.Verify(env, testType, time.Time{}, nil)
		checkVerdict(t, v, err, "signed by 0 of the 1 signers of rule 1, logs log, need 1: the signature by key "+alice.KeyID()+" has no entry of log log")
	})
	t.Run("one entry for two signatures", func(t *testing.T) {
		bob, bobPub := newPair(t, ECDSAP256)
		both := logPolicy(t, map[string]crypto.PublicKey{"alice": alicePub, "bob": bobPub}, map[string]*logtest.Log{"log": l},
			strings.NewReplacer(`["alice"]`, `["alice", "bob"]`, "threshold = 1", "threshold = 2").Replace(aliceLogged))
		env, err := Add(withEntry(t, env, entryOf(l, at)), testType, bob)
		if err != nil {
			t.Fatal(err)
		}
		env = edit(t, env, func(e *envelope) { e.Signatures[1].Log = e.Signatures[0].Log })
		v, err := both.Verify(env, testType, time.Time{}, nil)
		checkVerdict(t, v, err, "signed by 1 of the 2 signers")
	})
	t.Run("entry of an unknown signature", func(t *testing.T) {
		body := subjectOfSignature(t, byMallory, 0, malloryPub).hashed1()
		v, err := p.Verify(withEntry(t, byMallory, added(body)), testType, time.Time{}, nil)
		checkVerdict(t, v, err, "is not known here")
	})
	t.Run("a bad entry beside a good one", func(t *testing.T) {
		v, err := p.Verify(withEntry(t, env, entryOf(strange, at), entryOf(l, at)), testType, time.Time{}, nil)
		checkVerdict(t, v, err, "")
	})
}

// What is wrong with an entry is wrong with the envelope only if it is not one.
func TestMalformedLogEntries(t *testing.T) {
	alice, pub := newPair(t, ECDSAP256)
	env := seal(t, alice)
	l := newLog(t, Ed25519)
	l.Fill(1)
	l.Add(subjectOfSignature(t, env, 0, pub).hashed1())
	honest := entryOf(l, 1)
	change := func(f func(e *wireEntry)) []byte {
		e := honest
		e.Hashes = slices.Clone(e.Hashes)
		f(&e)
		return withEntry(t, env, e)
	}
	text := func(s string) []byte { return change(func(e *wireEntry) { e.Checkpoint = b64([]byte(s)) }) }
	sigLine := "— x " + b64([]byte("12345")) + "\n"
	root := b64(make([]byte, 32))
	p := newKeyring(t, pub).Policy(1)
	for name, b := range map[string][]byte{
		"index below 0":             change(func(e *wireEntry) { e.Index = -1 }),
		"no body":                   change(func(e *wireEntry) { e.Body = "" }),
		"no checkpoint":             change(func(e *wireEntry) { e.Checkpoint = "" }),
		"body not base64":           change(func(e *wireEntry) { e.Body = "x" }),
		"body too long":             change(func(e *wireEntry) { e.Body = strings.Repeat("AAAA", maxBody) }),
		"checkpoint too long":       change(func(e *wireEntry) { e.Checkpoint = strings.Repeat("AAAA", maxCheckpoint) }),
		"hash too short":            change(func(e *wireEntry) { e.Hashes[0] = b64(make([]byte, 31)) }),
		"hash too long":             change(func(e *wireEntry) { e.Hashes[0] = b64(make([]byte, 33)) }),
		"too many hashes":           change(func(e *wireEntry) { e.Hashes = slices.Repeat(e.Hashes, maxHashes+1) }),
		"too many entries":          withEntry(t, env, slices.Repeat([]wireEntry{honest}, MaxEntries+1)...),
		"a flood of hashes":         bytes.Replace(withEntry(t, env, honest), []byte(`"hashes":[`), []byte(`"hashes":[`+strings.Repeat(`"",`, 200_000)), 1),
		"a flood of entries":        bytes.Replace(withEntry(t, env, honest), []byte(`"log":[`), []byte(`"log":[`+strings.Repeat("{},", 200_000)), 1),
		"an empty list":             bytes.Replace(withEntry(t, env, honest), []byte(`"log":[`), []byte(`"log":[],"log":[`), 1),
		"unknown member":            bytes.Replace(withEntry(t, env, honest), []byte(`"log":[{`), []byte(`"log":[{"time":1,`), 1),
		"index as a fraction":       bytes.Replace(withEntry(t, env, honest), []byte(`"index":1`), []byte(`"index":1.0`), 1),
		"index as a text":           bytes.Replace(withEntry(t, env, honest), []byte(`"index":1`), []byte(`"index":"1"`), 1),
		"null entry":                bytes.Replace(withEntry(t, env, honest), []byte(`"log":[{`), []byte(`"log":[null,{`), 1),
		"no signature at all":       text("o\n1\n" + root + "\n"),
		"no origin":                 text("\n1\n" + root + "\n\n" + sigLine),
		"control character":         text("o\r\n1\n" + root + "\n\n" + sigLine),
		"no root":                   text("o\n1\n\n" + sigLine),
		"root too short":            text("o\n1\n" + root[4:] + "\n\n" + sigLine),
		"size 0":                    text("o\n0\n" + root + "\n\n" + sigLine),
		"size below 0":              text("o\n-1\n" + root + "\n\n" + sigLine),
		"size with a zero in front": text("o\n01\n" + root + "\n\n" + sigLine),
		"size with a sign":          text("o\n+1\n" + root + "\n\n" + sigLine),
		"size beyond 64 bits":       text("o\n9223372036854775808\n" + root + "\n\n" + sigLine),
		"line without a dash":       text("o\n1\n" + root + "\n\n" + sigLine[3:]),
		"line without a name":       text("o\n1\n" + root + "\n\n— " + b64([]byte("12345")) + "\n"),
		"line without a signature":  text("o\n1\n" + root + "\n\n— x " + b64([]byte("1234")) + "\n"),
		"a flood of lines":          text("o\n1\n" + root + "\n\n" + strings.Repeat(sigLine, maxNoteLines+1)),
	} {
		if v, err := p.Verify(b, testType, time.Time{}, nil); !errors.Is(err, ErrMalformed) || v != nil {
			t.Errorf("%s: Verify = %v, %v; want ErrMalformed", name, v, err)
		}
	}
	// A policy without logs does not look at a well-formed one.
	if v, err := p.Verify(withEntry(t, env, honest), testType, time.Time{}, nil); err != nil || len(v.Entries) != 0 {
		t.Errorf("Verify = %+v, %v", v, err)
	}
}

// The log of a certificate's signature may name the certificate or its key.
func TestLogEntryOfACertificate(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	leaf := issue(t, root, "Release", false, nil)
	again := issueFor(t, root, leaf.key, "Release", false, nil)
	env := seal(t, leaf.signer(t))
	byKey := subjectOfSignature(t, env, 0, leaf.cert.PublicKey)
	by := func(c *issued) subject {
		s := byKey
		s.isCert, s.pem, s.der = true, c.pem(), c.cert.Raw
		return s
	}
	for _, tc := range []struct {
		name string
		body []byte
		want string
	}{
		{"key, version 1", byKey.hashed1(), ""},
		{"key, version 2", byKey.hashed2(), ""},
		{"key, dsse", byKey.dsse1(), ""},
		{"certificate, version 1", by(leaf).hashed1(), ""},
		{"certificate, version 2", by(leaf).hashed2(), ""},
		{"certificate, dsse", by(leaf).dsse1(), ""},
		{"another certificate for the key, version 1", by(again).hashed1(), "names another key"},
		{"another certificate for the key, version 2", by(again).hashed2(), "names another key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t, Ed25519)
			l.Fill(4)
			l.Add(tc.body)
			ring := loadFiles(t, map[string][]byte{"root.pem": root.pem(), "log.tlog": l.PublicKey()})
			p, err := ParsePolicy([]byte("[signers.alice]\nfile = \"root.pem\"\n[logs.log]\nfile = \"log.tlog\"\norigin = \""+testOrigin+"\"\n"+aliceLogged), ring)
			if err != nil {
				t.Fatal(err)
			}
			v, err := p.Verify(withEntry(t, env, entryOf(l, 4)), testType, time.Time{}, claim(Claims{Created: year(2026)}))
			checkVerdict(t, v, err, tc.want)
		})
	}
}

// A log cannot sign releases, and what it says of the time decides nothing.
// A rule takes an entry of any of its logs; rules add up, so two of them can ask for both.
// FuzzCheckpoint: what is taken for a checkpoint says one thing, within its bounds.
func FuzzCheckpoint(f *testing.F) {
	l := newLog(f, Ed25519)
	l.Fill(5)
	f.Add(l.Checkpoint())
	f.Add(l.Sign(l.Text(3) + "Timestamp: 1688058655037355364\n"))
	f.Add([]byte("o\n1\n" + b64(make([]byte, 32)) + "\n\n— x " + b64([]byte("12345")) + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := parseCheckpoint(b)
		if (err == nil) != (c != nil) {
			t.Fatalf("parseCheckpoint = %v, %v", c, err)
		}
		if err != nil {
			return
		}
		want := fmt.Sprintf("%s\n%d\n%s\n", c.origin, c.size, b64(c.root[:]))
		if c.size < 1 || len(c.sigs) > maxNoteLines || !strings.HasPrefix(c.text, want) || !bytes.HasPrefix(b, []byte(c.text+"\n")) {
			t.Fatalf("%q was read as %+v", b, c)
		}
	})
}

// FuzzLogEntry: no change of a proven entry proves anything but the same.
func FuzzLogEntry(f *testing.F) {
	// The same keys in every process that fuzzes.
	fixed := func(seed byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	}
	alice, err := NewSigner(fixed(1))
	if err != nil {
		f.Fatal(err)
	}
	pub := fixed(1).Public()
	env := seal(f, alice)
	l := logtest.New(testOrigin, fixed(2))
	l.Fill(5)
	l.Add(subjectOfSignature(f, env, 0, pub).dsse1())
	l.Fill(5)
	honest := entryOf(l, 5)
	p := logPolicy(f, map[string]crypto.PublicKey{"alice": pub}, map[string]*logtest.Log{"log": l}, aliceLogged)
	seed := func(e wireEntry) {
		b, err := json.Marshal(e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	seed(honest)
	seed(entryOf(l, 4))
	f.Add([]byte(`{"index":0,"checkpoint":"","body":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e wireEntry
		if json.Unmarshal(b, &e) != nil {
			return
		}
		v, err := p.Verify(withEntry(t, env, e), testType, time.Time{}, nil)
		if (err == nil) != (v != nil) {
			t.Fatalf("Verify = %v, %v", v, err)
		}
		if err == nil && (e.Index != 5 || e.Body != honest.Body || !slices.Equal(e.Hashes, honest.Hashes)) {
			t.Fatalf("proven by %+v", e)
		}
	})
}

// A log entry belongs to a signature: it stays as long as that does.
