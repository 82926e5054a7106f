// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"crypto"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/sign/logtest"
)

func TestLogKeyIsNoSignersKey(t *testing.T) {
	_, pub := newPair(t, ECDSAP256)
	l := newLog(t, ECDSAP256)
	ring := loadFiles(t, map[string][]byte{"alice.pub": pubPEM(t, pub), "log.tlog": l.PublicKey()})
	asSigner, err := NewSigner(l.Key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ring.Verify(seal(t, asSigner), testType, 1)
	checkVerdict(t, v, err, "is not known here")
	signer := "[signers.log]\nfile = \"log.tlog\"\n[[rule]]\nsigners = [\"log\"]\nthreshold = 1\n"
	if p, err := ParsePolicy([]byte(signer), ring); p != nil || !errors.Is(err, ErrPolicy) {
		t.Errorf("a log as a signer: ParsePolicy = %v, %v", p, err)
	}
	if _, err := ParsePolicy([]byte("[signers.log]\nid = \""+asSigner.KeyID()+"\"\n[[rule]]\nsigners = [\"log\"]\nthreshold = 1\n"), ring); !errors.Is(err, ErrPolicy) {
		t.Errorf("a log as a signer, by its id: %v", err)
	}
	only := t.TempDir()
	if err := os.WriteFile(filepath.Join(only, "log.tlog"), l.PublicKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	if k, err := LoadKeyring(only); !errors.Is(err, ErrKey) {
		t.Errorf("a keyring of a log alone: %v, %v", k, err)
	}
}

func TestLogsOfAPolicyFailClosed(t *testing.T) {
	l, twin := newLog(t, ECDSAP256), newLog(t, ECDSAP256)
	pub := twin.Key.Public()
	id, err := KeyID(l.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	signers := map[string]crypto.PublicKey{"alice": pub}
	logs := map[string]*logtest.Log{"log": l}
	for _, tc := range []struct {
		name  string
		logs  map[string]*logtest.Log
		rules string
		want  string
	}{
		{"good", logs, aliceLogged, ""},
		{"no logs in the rule", logs, strings.Replace(aliceLogged, `["log"]`, `[]`, 1), "logs is empty"},
		{"unknown log", logs, strings.Replace(aliceLogged, `["log"]`, `["rekor"]`, 1), `no log "rekor"`},
		{"log twice", logs, strings.Replace(aliceLogged, `["log"]`, `["log", "log"]`, 1), "twice"},
		{"revoked log", logs, "revoked = [\"" + id + "\"]\n" + aliceLogged, `no log "log" whose key is not revoked`},
		{"no origin", map[string]*logtest.Log{"log": logtest.New("", l.Key)}, aliceLogged, "origin must be"},
		{"origin of two lines", map[string]*logtest.Log{"log": logtest.New("a\nb", l.Key)}, aliceLogged, "origin must be"},
		{"the key of a signer", map[string]*logtest.Log{"log": twin}, aliceLogged, "that of a signer too"},
		{"a signer's file", logs, aliceLogged + "[logs.b]\nfile = \"alice.pub\"\norigin = \"x\"\n", "must end in .tlog"},
		{"unknown file", logs, aliceLogged + "[logs.b]\nfile = \"b.tlog\"\norigin = \"x\"\n", "no file \"b.tlog\""},
		{"no file", logs, aliceLogged + "[logs.b]\norigin = \"x\"\n", "no file"},
		{"unknown key", logs, aliceLogged + "[logs.b]\nfile = \"log.tlog\"\norigin = \"x\"\nwitness = \"y\"\n", "unknown key logs.b.witness"},
		{"name with a slash", logs, aliceLogged + "[logs.\"a/b\"]\nfile = \"log.tlog\"\norigin = \"x\"\n", "a/b"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := parseLogPolicy(t, signers, tc.logs, tc.rules)
			if tc.want == "" {
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
}

func TestRulesAboutLogs(t *testing.T) {
	alice, pub := newPair(t, ECDSAP256)
	env := seal(t, alice)
	body := subjectOfSignature(t, env, 0, pub).hashed1()
	logs := make(map[string]*logtest.Log)
	entries := make(map[string]wireEntry)
	for _, name := range []string{"old", "new"} {
		l := newLog(t, ECDSAP256)
		l.Origin = name
		l.Fill(2)
		l.Add(body)
		logs[name], entries[name] = l, entryOf(l, 2)
	}
	rule := func(names string) string {
		return "[[rule]]\nsigners = [\"alice\"]\nlogs = [" + names + "]\nthreshold = 1\n"
	}
	for _, tc := range []struct {
		name, rules string
		entries     []wireEntry
		want        string
	}{
		{"either, the first", rule(`"old", "new"`), []wireEntry{entries["old"]}, ""},
		{"either, the second", rule(`"old", "new"`), []wireEntry{entries["new"]}, ""},
		{"either, none", rule(`"old", "new"`), nil, "has no entry of log old or new"},
		{"both, one", rule(`"old"`) + rule(`"new"`), []wireEntry{entries["new"]}, "has no entry of log old"},
		{"both, both", rule(`"old"`) + rule(`"new"`), []wireEntry{entries["new"], entries["old"]}, ""},
		{"another log than asked for", rule(`"old"`), []wireEntry{entries["new"]}, "has no entry of log old"},
		{"none asked for, none there", "[[rule]]\nsigners = [\"alice\"]\nthreshold = 1\n", nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := logPolicy(t, map[string]crypto.PublicKey{"alice": pub}, logs, tc.rules)
			v, err := p.Verify(withEntry(t, env, tc.entries...), testType, time.Time{}, nil)
			checkVerdict(t, v, err, tc.want)
			if tc.want == "" && len(v.Entries) != len(tc.entries) {
				t.Errorf("Entries = %+v", v.Entries)
			}
		})
	}
}

func TestSigningAgainKeepsWhatALogHas(t *testing.T) {
	alice, alicePub := newPair(t, ECDSAP256)
	bob, bobPub := newPair(t, Ed25519)
	env := seal(t, alice, bob)
	bare := env
	l := newLog(t, ECDSAP256)
	for i, body := range [][]byte{subjectOfSignature(t, env, 0, alicePub).hashed1(), subjectOfSignature(t, env, 1, bobPub).dsse1()} {
		l.Add(body)
		env = edit(t, env, func(e *envelope) { e.Signatures[i].Log = []wireEntry{entryOf(l, i)} })
	}
	p := logPolicy(t, map[string]crypto.PublicKey{"alice": alicePub, "bob": bobPub}, map[string]*logtest.Log{"log": l},
		strings.Replace(aliceLogged, `["alice"]`, `["alice", "bob"]`, 1))
	logged := func(env []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		v, err := p.Verify(env, testType, time.Time{}, nil)
		if err != nil {
			return "none"
		}
		var names []string
		for _, e := range v.Entries {
			names = append(names, map[string]string{alice.KeyID(): "alice", bob.KeyID(): "bob"}[e.KeyID])
		}
		return strings.Join(names, " ")
	}
	carol, _ := newPair(t, Ed25519)
	for _, tc := range []struct{ name, got, want string }{
		{"both logged", logged(env, nil), "alice bob"},
		{"another signature added", logged(Add(env, testType, carol)), "alice bob"},
		{"the same signature again", logged(Add(env, testType, bob)), "alice bob"},
		{"another signature by the same key", logged(Add(env, testType, alice)), "bob"},
		{"signed elsewhere and logged, then attached", logged(Attach(bare, testType, env)), "alice bob"},
		{"attached again without what the log has", logged(Attach(env, testType, bare)), "alice bob"},
		{"all replaced", logged(Replace(env, testType, bob)), "none"},
	} {
		if tc.got != tc.want {
			t.Errorf("%s: logged are %s; want %s", tc.name, tc.got, tc.want)
		}
	}
}
