// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign/logtest"
)

// What is asked for is what a log makes an entry of, and what it answers is what a
// device believes.
func TestFromRequestToEntry(t *testing.T) {
	root := issue(t, nil, "Root", true, nil)
	leaf := issue(t, root, "Release", false, nil)
	ec, ecPub := newPair(t, ECDSAP256)
	ed, edPub := newPair(t, Ed25519)
	for _, tc := range []struct {
		name  string
		by    Signer
		rekor int
		want  string // in the request
	}{
		{"ECDSA, Rekor 1", ec, Rekor1, `"kind":"hashedrekord"`},
		{"ECDSA, Rekor 2", ec, Rekor2, `"hashedRekordRequestV002"`},
		{"Ed25519, Rekor 1", ed, Rekor1, `"kind":"dsse"`},
		{"certificate, Rekor 1", leaf.signer(t), Rekor1, `"kind":"hashedrekord"`},
		{"certificate, Rekor 2", leaf.signer(t), Rekor2, `"x509Certificate"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLog(t, Ed25519)
			files := map[string][]byte{"ec.pub": pubPEM(t, ecPub), "ed.pub": pubPEM(t, edPub), "root.pem": root.pem(), "log.tlog": l.PublicKey()}
			p, err := ParsePolicy(fmt.Appendf(nil, `
[signers.ec]
file = "ec.pub"
[signers.ed]
file = "ed.pub"
[signers.root]
file = "root.pem"
[logs.log]
file = "log.tlog"
origin = %q
[[rule]]
signers = ["ec", "ed", "root"]
logs = ["log"]
threshold = 1
`, l.Origin), loadFiles(t, files))
			if err != nil {
				t.Fatal(err)
			}
			verify := func(p *Policy, env []byte) (*Verified, error) {
				return p.Verify(env, testType, time.Time{}, claim(Claims{Created: year(2026)}))
			}
			env := seal(t, tc.by)
			_, err = verify(p, env)
			if !errors.Is(err, ErrUntrusted) {
				t.Fatalf("before: %v", err)
			}
			if _, err := verify(p.Unlogged(), env); err != nil {
				t.Fatalf("but for the log: %v", err)
			}
			request, err := p.LogRequest(env, testType, "", tc.rekor)
			if err != nil || !bytes.Contains(request, []byte(tc.want)) {
				t.Fatalf("LogRequest = %s, %v; want %s in it", request, err, tc.want)
			}
			l.Fill(3)
			at, err := l.Take(request)
			if err != nil {
				t.Fatal(err)
			}
			l.Fill(1)
			bundle := logtest.Canonical(obj{"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
				"verificationMaterial": obj{"tlogEntries": []any{json.RawMessage(l.Answer2(at))}}})
			for kind, answer := range map[string][]byte{"Rekor 1": l.Answer1(at), "Rekor 2": l.Answer2(at), "Sigstore bundle": bundle} {
				logged, entry, err := p.AttachEntry(env, testType, answer)
				want := LogEntry{KeyID: tc.by.KeyID(), Log: "log", Origin: testOrigin, Index: 3, Size: 5}
				if err != nil || *entry != want {
					t.Fatalf("%s: AttachEntry = %+v, %v; want %+v", kind, entry, err, want)
				}
				v, err := verify(p, logged)
				if err != nil || len(v.Entries) != 1 || v.Entries[0] != want {
					t.Fatalf("%s: Verify = %+v, %v", kind, v, err)
				}
				// Once more: the older entry of the log goes.
				again, _, err := p.AttachEntry(logged, testType, answer)
				if err != nil {
					t.Fatal(err)
				}
				if all, err := Entries(again); err != nil || len(all) != 1 || all[0].Index != 3 || all[0].Log != "" {
					t.Errorf("%s: Entries = %+v, %v", kind, all, err)
				}
			}
		})
	}
}

func TestLogRequestRefuses(t *testing.T) {
	ec, ecPub := newPair(t, ECDSAP256)
	ed, edPub := newPair(t, Ed25519)
	mallory, _ := newPair(t, ECDSAP256)
	p := newKeyring(t, ecPub, edPub).Policy(1)
	for name, tc := range map[string]struct {
		env   []byte
		id    string
		rekor int
		want  string
	}{
		"two signatures":        {seal(t, ec, ed), "", Rekor1, "there are 2 signatures"},
		"none by the key":       {seal(t, ec), ed.KeyID(), Rekor1, "no signature by key"},
		"none by a known key":   {seal(t, mallory), "", Rekor1, "no signature by key"},
		"Ed25519 for Rekor 2":   {seal(t, ed), "", Rekor2, "takes no signatures by Ed25519 keys"},
		"a Rekor that is none":  {seal(t, ec), "", 3, "no request for Rekor 3"},
		"not an envelope":       {[]byte("{}"), "", Rekor1, "malformed"},
		"one of the two, named": {seal(t, ec, ed), ed.KeyID(), Rekor1, ""},
	} {
		b, err := p.LogRequest(tc.env, testType, tc.id, tc.rekor)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if b != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: LogRequest = %s, %v; want an error that says %q", name, b, err, tc.want)
		}
	}
}

func TestAttachEntryRefuses(t *testing.T) {
	alice, pub := newPair(t, ECDSAP256)
	env := seal(t, alice)
	l, strange := newLog(t, ECDSAP256), newLog(t, ECDSAP256)
	s := subjectOfSignature(t, env, 0, pub)
	other := subjectOfSignature(t, seal(t, alice), 0, pub)
	for _, l := range []*logtest.Log{l, strange} {
		l.Fill(2)
		l.Add(s.hashed1())
		l.Add(other.hashed1())
	}
	p := logPolicy(t, map[string]crypto.PublicKey{"alice": pub}, map[string]*logtest.Log{"log": l}, aliceLogged)
	without := func(member string) []byte {
		return bytes.ReplaceAll(l.Answer2(2), []byte(`"`+member+`"`), []byte(`"x"`))
	}
	for name, tc := range map[string]struct {
		answer []byte
		want   string
	}{
		"entry for another signature":   {l.Answer1(3), "about another signature"},
		"entry for something else":      {l.Answer2(0), "about something else"},
		"of a log with another key":     {strange.Answer2(2), "not signed with the key of log log"},
		"no proof":                      {without("inclusionProof"), "no inclusion proof"},
		"no proof, Rekor 1":             {bytes.ReplaceAll(l.Answer1(2), []byte("inclusionProof"), []byte("x")), "no inclusion proof"},
		"no checkpoint":                 {without("checkpoint"), "no inclusion proof with a checkpoint"},
		"no hashes":                     {without("hashes"), "do not lead to the root"},
		"no body":                       {without("canonicalizedBody"), "neither a log entry"},
		"hash that is none":             {bytes.Replace(l.Answer1(2), []byte(`"hashes":["`), []byte(`"hashes":["zz`), 1), "a hash of the proof"},
		"index that is none":            {bytes.ReplaceAll(l.Answer2(2), []byte(`"logIndex":"2"`), []byte(`"logIndex":"x"`)), "neither a log entry"},
		"too many hashes":               {bytes.Replace(l.Answer2(2), []byte(`"hashes":[`), []byte(`"hashes":[`+strings.Repeat(`"",`, 100)), 1), "more than 63 hashes"},
		"a bundle without entries":      {[]byte(`{"verificationMaterial":{}}`), "has 0 log entries"},
		"several entries":               {[]byte(`{"a":{},"b":{}}`), "2 log entries"},
		"nothing":                       {nil, "neither a log entry"},
		"an empty object":               {[]byte(`{}`), "0 log entries"},
		"a page":                        {[]byte("<html>"), "neither a log entry"},
		"too long":                      {make([]byte, MaxLogResponse+1), "more than 1048576 bytes"},
		"a text where an object was":    {[]byte(`{"inclusionProof":"x"}`), "neither a log entry"},
		"a checkpoint that is not one":  {bytes.ReplaceAll(l.Answer2(2), []byte("example"), []byte(`\n`)), "no signed note"},
		"proof of a tree without entry": {bytes.ReplaceAll(l.Answer2(2), []byte(`"logIndex":"2"`), []byte(`"logIndex":"7"`)), "the checkpoint is of 4 entries"},
	} {
		out, entry, err := p.AttachEntry(env, testType, tc.answer)
		if out != nil || entry != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: AttachEntry = %s, %v, %v; want an error that says %q", name, out, entry, err, tc.want)
		}
	}
	mallory, malloryPub := newPair(t, ECDSAP256)
	env = seal(t, mallory)
	at := l.Add(subjectOfSignature(t, env, 0, malloryPub).hashed1())
	if _, _, err := p.AttachEntry(env, testType, l.Answer1(at)); !errors.Is(err, ErrUntrusted) {
		t.Errorf("signature by an unknown key: %v", err)
	}
}

// Without a log in the policy nobody knows who signed the checkpoint, and the result says so.
func TestAttachEntryOfAnUnknownLog(t *testing.T) {
	alice, pub := newPair(t, Ed25519)
	env := seal(t, alice)
	s := subjectOfSignature(t, env, 0, pub)
	p := newKeyring(t, pub).Policy(1)
	for i := range MaxEntries + 1 {
		l := newLog(t, ECDSAP256)
		l.Origin = fmt.Sprint("log ", i)
		next, entry, err := p.AttachEntry(env, testType, l.Answer2(l.Add(s.dsse1())))
		if i == MaxEntries {
			if !errors.Is(err, ErrMalformed) {
				t.Errorf("entry %d: %v", i+1, err)
			}
			break
		}
		if err != nil || entry.Log != "" || entry.Size != 1 {
			t.Fatalf("AttachEntry = %+v, %v", entry, err)
		}
		env = next
	}
	all, err := Entries(env)
	if err != nil || !slices.EqualFunc(all, []string{"log 0", "log 1", "log 2", "log 3"}, func(e LogEntry, o string) bool { return e.Origin == o }) {
		t.Errorf("Entries = %+v, %v", all, err)
	}
}

// FuzzParseAnswer: what is taken for an answer is an entry that an envelope can have.
func FuzzParseAnswer(f *testing.F) {
	l := newLog(f, Ed25519)
	l.Fill(5)
	f.Add(l.Answer1(3))
	f.Add(l.Answer2(0))
	f.Add([]byte(`{"verificationMaterial":{"tlogEntries":[` + string(l.Answer2(1)) + `]}}`))
	f.Add([]byte(`{"a":{"verification":{"inclusionProof":{"logIndex":1e3,"hashes":[""],"checkpoint":"x"}}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseAnswer(b)
		if (err == nil) != (e != nil) {
			t.Fatalf("parseAnswer = %v, %v", e, err)
		}
		if err != nil {
			return
		}
		if len(e.Hashes) > maxHashes {
			t.Fatalf("%d hashes", len(e.Hashes))
		}
		for _, s := range append(slices.Clone(e.Hashes), e.Checkpoint, e.Body) {
			if _, err := decode(s); err != nil {
				t.Fatal(err)
			}
		}
	})
}
