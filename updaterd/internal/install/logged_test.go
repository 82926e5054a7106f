// SPDX-License-Identifier: Apache-2.0

package install

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/logtest"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A device whose policy asks for a log takes a release that the log has, and no other
// one, whatever entry that comes with.
func TestLoggedReleases(t *testing.T) {
	v1, v2 := systems()
	l := logtest.New("log.example.com - 42", ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))
	keys := t.TempDir()
	write(t, filepath.Join(keys, "a.pub"), newKey().public)
	write(t, filepath.Join(keys, "log.tlog"), l.PublicKey())
	policy := must(sign.ParsePolicy(fmt.Appendf(nil, "[signers.a]\nfile = \"a.pub\"\n[logs.log]\nfile = \"log.tlog\"\norigin = %q\n"+
		"[[rule]]\nsigners = [\"a\"]\nlogs = [\"log\"]\nthreshold = 1\n", l.Origin), must(sign.LoadKeyring(keys))))

	plain := build(t, nil, "rootfs", v1, v2)
	path := write(t, filepath.Join(t.TempDir(), "logged.upb"), plain)
	f := must(bundle.Open(path, policy.Unlogged()))
	defer f.Close()
	l.Fill(4)
	at := must(l.Take(must(f.LogRequest(policy, "", sign.Rekor1))))
	l.Fill(4)
	if _, err := f.AttachEntry(path, policy, l.Answer1(at)); err != nil {
		t.Fatal(err)
	}
	logged := must(os.ReadFile(path))
	other := withSignature(t, build(t, func(s *bundle.Spec) { s.Version = "2.1" }, "rootfs", v1, v2), "log", signature(t, logged)["log"])

	for name, tc := range map[string]struct {
		data []byte
		want string // of the error; "" = accepted
	}{
		"logged":                         {logged, ""},
		"not logged":                     {plain, "has no entry of log log"},
		"log entry for another artifact": {other, "it is about something else than this payload"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, tc.data, v1, nil)
			r.o.Policy = func() (*sign.Policy, error) { return policy, nil }
			r.restart()
			_, err := r.engine.Inspect(t.Context(), r.url(), "b", update.InstallOptions{})
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantName(t, err, update.NameUntrustedSignature)
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v; want an error that says %q", err, tc.want)
			}
		})
	}
}

// signature is the only one of a bundle, as JSON.
func signature(t *testing.T, data []byte) map[string]json.RawMessage {
	t.Helper()
	var e struct {
		Signatures []map[string]json.RawMessage `json:"signatures"`
	}
	n := must(bundle.ParseHeader(data))
	if err := json.Unmarshal(data[bundle.HeaderSize:][:n], &e); err != nil || len(e.Signatures) != 1 {
		t.Fatalf("%d signatures, %v", len(e.Signatures), err)
	}
	return e.Signatures[0]
}

// withSignature adds a member to the only signature of a bundle.
func withSignature(t *testing.T, data []byte, member string, value json.RawMessage) []byte {
	t.Helper()
	n := must(bundle.ParseHeader(data))
	envelope := bytes.TrimSuffix(data[bundle.HeaderSize:][:n], []byte("}]}"))
	envelope = fmt.Appendf(bytes.Clone(envelope), ",%q:%s}]}", member, value)
	out := append(bytes.Clone(data[:bundle.HeaderSize-4]), binary.LittleEndian.AppendUint32(nil, uint32(len(envelope)))...)
	return append(append(out, envelope...), data[bundle.HeaderSize+n:]...)
}
