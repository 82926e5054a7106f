// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/updaterd/updaterd/bundle/canonical"
	"github.com/updaterd/updaterd/bundle/seal"
)

func newIdentity(t testing.TB) *seal.Identity {
	t.Helper()
	id, err := seal.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// buildSealed builds testSpec for some recipients.
func buildSealed(t testing.TB, dir string, ids ...*seal.Identity) string {
	t.Helper()
	return sealedOf(t, dir, testSpec(t, dir), ids...)
}

func sealedOf(t testing.TB, dir string, s Spec, ids ...*seal.Identity) string {
	t.Helper()
	for _, id := range ids {
		s.Recipients = append(s.Recipients, id.Recipient())
	}
	out := filepath.Join(dir, "sealed.upb")
	if err := Build(context.Background(), out, s); err != nil {
		t.Fatal(err)
	}
	return out
}

// Every recipient makes every image, by every recipe, and nobody else makes any.
func TestEncrypted(t *testing.T) {
	dir := t.TempDir()
	first, second, stranger := newIdentity(t), newIdentity(t), newIdentity(t)
	spec := testSpec(t, dir)
	spec.Blocks, spec.ChunkSize = true, 64<<10
	image := slices.Concat(text(200<<10, 1), noise(100<<10, 2), make([]byte, 300<<10), text(150_000, 3), noise(100<<10, 4), text(77_777, 5))
	writeFile(t, dir, "v2", image)
	old := writeFile(t, dir, "v1", append(text(100<<10, 9), image[100<<10:]...))
	other := writeFile(t, dir, "other", slices.Concat(noise(1<<20, 8), image[64<<10:]))
	path := sealedOf(t, dir, spec, first, second)
	for _, id := range []*seal.Identity{first, second} {
		f := openTest(t, path)
		if err := f.Manifest.Unlock(stranger, id); err != nil {
			t.Fatal(err)
		}
		checked, err := f.Check(context.Background(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(checked) != 4 {
			t.Errorf("%d recipes, want a delta, a blocks and two full ones", len(checked))
		}
		for _, tc := range []struct{ class, source, kind, want string }{
			{"rootfs", "", KindFull, "v2"}, {"rootfs", old, KindDelta, "v2"}, {"rootfs", other, KindBlocks, "v2"}, {"bootloader", "", KindFull, "boot"},
		} {
			out := filepath.Join(dir, "out")
			a, err := f.Apply(context.Background(), tc.class, given(tc.source), out, nil)
			if err != nil {
				t.Fatal(err)
			}
			if kind := f.Manifest.Image(tc.class).Recipes[a.Recipe].Kind; kind != tc.kind || a.Fallback != 0 {
				t.Errorf("%s from %q by %s, with %d chunks from the full recipe", tc.class, tc.source, kind, a.Fallback)
			}
			if !bytes.Equal(readFile(t, out), readFile(t, filepath.Join(dir, tc.want))) {
				t.Errorf("%s from %q is another image", tc.class, tc.source)
			}
		}
	}
	f := openTest(t, path)
	for what, ids := range map[string][]*seal.Identity{"no identity": nil, "wrong identity": {stranger}} {
		err := f.Manifest.Unlock(ids...)
		if !errors.Is(err, ErrLocked) || len(ids) > 0 && !strings.Contains(err.Error(), stranger.Recipient().ID()) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := f.Check(context.Background(), nil); !errors.Is(err, ErrLocked) {
			t.Errorf("%s: check: %v", what, err)
		}
	}
}

// Nothing of an image, nor of its tables, is in the file, and no piece is there twice.
func TestEncryptedHidesContent(t *testing.T) {
	dir := t.TempDir()
	id := newIdentity(t)
	path := buildSealed(t, dir, id)
	b := readFile(t, path)
	f := openTest(t, path)
	payload := b[f.PayloadOffset:]
	for _, name := range []string{"v2", "boot"} {
		image := readFile(t, filepath.Join(dir, name))
		for at := 0; at+16 <= len(image); at += 16 {
			if part := image[at:][:16]; !isZero(part) && bytes.Contains(payload, part) {
				t.Fatalf("bytes %d to %d of %s are in the bundle", at, at+15, name)
			}
		}
		for at := 0; at < len(image); at += testChunk {
			if d := Sum(image[at:min(at+testChunk, len(image))]); bytes.Contains(payload, d[:8]) {
				t.Errorf("the digest of chunk %d of %s is in the bundle", at/testChunk, name)
			}
		}
	}
	again := readFile(t, buildSealed(t, dir, id))
	again = again[len(again)-len(payload):]
	same := 0
	for i := range payload {
		if payload[i] == again[i] {
			same++
		}
	}
	if same > len(payload)/50 { // 1 in 256 by chance
		t.Errorf("%d of %d bytes are the same in a second build", same, len(payload))
	}
}

// A piece opens where it was sealed, in the bundle that it was sealed for, whatever
// a signer says of it.
func TestSealedPieces(t *testing.T) {
	key, other := seal.NewKey(), seal.NewKey()
	content := noise(testChunk, 1)
	d, err := NewDecoder(&Manifest{Images: []Image{{key: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dst := make([]byte, testChunk)
	for what, tc := range map[string]struct {
		enc []byte
		at  int64
		ok  bool
	}{
		"as it was sealed":               {seal.Seal(key, nil, content, 100), 100, true},
		"chunk moved to another place":   {seal.Seal(key, nil, content, 100), 100 + testChunk + seal.Overhead, false},
		"chunk of another bundle":        {seal.Seal(other, nil, content, 100), 100, false},
		"chunk that is not sealed":       {append(slices.Clone(content), make([]byte, seal.Overhead)...), 100, false},
		"chunk that lacks its last byte": {seal.Seal(key, nil, content, 100)[:testChunk+seal.Overhead-1], 100, false},
	} {
		e := entryOf(Raw, tc.enc)
		e.Offset = tc.at
		if err := d.Decode(dst, Sum(content), e, tc.enc, Basis{}); (err == nil) != tc.ok || !tc.ok && !errors.Is(err, ErrContent) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// One that is not what was signed is not opened.
	enc := seal.Seal(key, nil, content, 100)
	e := entryOf(Raw, enc)
	e.Offset = 100
	enc[7] ^= 1
	was := slices.Clone(enc)
	if err := d.Decode(dst, Sum(content), e, enc, Basis{}); !errors.Is(err, ErrEncoded) || !bytes.Equal(enc, was) {
		t.Errorf("altered chunk: %v", err)
	}
}

// Whatever byte is altered, of the recipients, of a table or of a piece, no image
// comes out of it.
func TestEncryptedEveryByteCounts(t *testing.T) {
	dir := t.TempDir()
	id := newIdentity(t)
	path := buildSealed(t, dir, id)
	good, genuine := readFile(t, path), openTest(t, path)
	policy := testPolicy(t, "alice", 1)
	for at := 0; at < len(good); at += 101 {
		bad := slices.Clone(good)
		bad[at] ^= 0x40
		f, err := Open(writeFile(t, dir, "bad", bad), policy)
		if err != nil {
			continue
		}
		if f.Digest != genuine.Digest {
			t.Fatalf("byte %d: another manifest is verified", at)
		}
		if err := f.Manifest.Unlock(id); err != nil {
			t.Fatal(err)
		}
		_, err = f.Check(context.Background(), nil)
		if f.Close(); int64(at) >= genuine.PayloadOffset && !errors.Is(err, ErrEncoded) {
			t.Fatalf("byte %d of the payload: Check: %v; want ErrEncoded", int64(at)-genuine.PayloadOffset, err)
		}
	}
	for _, n := range []int{1, testChunk, len(good) - HeaderSize} {
		if _, err := Open(writeFile(t, dir, "short", good[:len(good)-n]), policy); !errors.Is(err, ErrTruncated) {
			t.Errorf("%d bytes short: %v", n, err)
		}
	}
}

// sealedManifest is testManifest with a blocks recipe, for two recipients.
func sealedManifest(t testing.TB, ids ...*seal.Identity) *Manifest {
	t.Helper()
	m := testManifest()
	m.addBlocks()
	b := &builder{Spec: Spec{}}
	for _, id := range ids {
		b.Recipients = append(b.Recipients, id.Recipient())
	}
	if err := b.encrypt(m); err != nil {
		t.Fatal(err)
	}
	for i := range m.Images {
		m.Images[i].Chunks.Length += seal.Overhead
		for k := range m.Images[i].Recipes {
			m.Images[i].Recipes[k].Table.Length += seal.Overhead
		}
	}
	m.place()
	return m
}

// What a signer may not say of recipients.
func TestEncryptionInManifests(t *testing.T) {
	first, second := newIdentity(t), newIdentity(t)
	for what, tc := range map[string]struct {
		edit func(m *Manifest)
		want string // "" if it is good
	}{
		"as it should be":            {func(*Manifest) {}, ""},
		"data with every overhead":   {func(m *Manifest) { m.Images[1].Recipes[0].Data.Length = 1 + seal.Overhead }, ""},
		"data longer than that":      {func(m *Manifest) { m.Images[1].Recipes[0].Data.Length = 2 + seal.Overhead }, "data of"},
		"feature without recipients": {func(m *Manifest) { m.Encryption = nil }, "go together"},
		"recipients, no feature":     {func(m *Manifest) { m.Requires = nil }, "go together"},
		"feature twice":              {func(m *Manifest) { m.Requires = append(m.Requires, RequiresEncryption) }, "does not know"},
		"another feature, too":       {func(m *Manifest) { m.Requires = append(m.Requires, "compression") }, `"compression"`},
		"another scheme":             {func(m *Manifest) { m.Encryption.Scheme = "rot13" }, "scheme"},
		"no recipients":              {func(m *Manifest) { m.Encryption.Recipients = nil }, "0 recipients"},
		"too many recipients": {func(m *Manifest) {
			for i := range MaxRecipients {
				w := m.Encryption.Recipients[0]
				w.ID = Sum([]byte{byte(i)}).String()[len(digestPrefix):]
				m.Encryption.Recipients = append(m.Encryption.Recipients, w)
			}
		}, "66 recipients"},
		"a recipient twice":       {func(m *Manifest) { m.Encryption.Recipients[1] = m.Encryption.Recipients[0] }, "twice"},
		"id in upper case":        {func(m *Manifest) { m.Encryption.Recipients[0].ID = strings.Repeat("A", 64) }, "hex digits"},
		"id cut short":            {func(m *Manifest) { m.Encryption.Recipients[0].ID = "aa" }, "hex digits"},
		"key cut short":           {func(m *Manifest) { m.Encryption.Recipients[0].Key = m.Encryption.Recipients[0].Key[1:] }, "wrapped key"},
		"no key":                  {func(m *Manifest) { m.Encryption.Recipients[0].Key = nil }, "wrapped key"},
		"chunk table not sealed":  {func(m *Manifest) { m.Images[0].Chunks.Length -= seal.Overhead }, "chunk table"},
		"recipe table not sealed": {func(m *Manifest) { m.Images[0].Recipes[0].Table.Length -= seal.Overhead }, "table"},
		"frame table not sealed":  {func(m *Manifest) { m.Images[0].Recipes[2].Table.Length -= seal.Overhead }, "table"},
	} {
		m := sealedManifest(t, first, second)
		tc.edit(m)
		m.place()
		b, err := canonical.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseManifest(b)
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			} else if err := got.Unlock(second); err != nil {
				t.Errorf("%s: unlock: %v", what, err)
			}
		} else if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want ErrMalformed with %q", what, err, tc.want)
		}
	}
}

// A recipient that is not whom the key was wrapped for is the signer's mistake.
func TestWrappedForAnother(t *testing.T) {
	first, second := newIdentity(t), newIdentity(t)
	m := sealedManifest(t, first, second)
	r := m.Encryption.Recipients
	r[0].Key, r[1].Key = r[1].Key, r[0].Key
	if err := m.Unlock(first); !errors.Is(err, ErrContent) {
		t.Errorf("Unlock: %v; want ErrContent", err)
	}
	m = sealedManifest(t, first)
	m.Encryption.Recipients[0].Key[500] ^= 1
	if err := m.Unlock(first); !errors.Is(err, ErrContent) {
		t.Errorf("Unlock of an altered key: %v; want ErrContent", err)
	}
}

// A delta is made from an encrypted bundle by who can read it.
func TestDeltaFromEncryptedBundle(t *testing.T) {
	dir := t.TempDir()
	id := newIdentity(t)
	older := testSpec(t, dir)
	older.Images = older.Images[:1]
	older.Images[0].Path, older.Images[0].Deltas = older.Images[0].Deltas[0].Path, nil
	older.Recipients = []*seal.Recipient{id.Recipient()}
	old := filepath.Join(dir, "old.upb")
	if err := Build(context.Background(), old, older); err != nil {
		t.Fatal(err)
	}
	spec := testSpec(t, dir)
	spec.Policy = testPolicy(t, "alice", 1)
	spec.Images[0].Deltas = []SourceSpec{{Path: old}}
	spec.Recipients = older.Recipients
	out := filepath.Join(dir, "new.upb")
	if err := Build(context.Background(), out, spec); !errors.Is(err, ErrLocked) {
		t.Errorf("without an identity: %v", err)
	}
	spec.Identities = []*seal.Identity{id}
	if err := Build(context.Background(), out, spec); err != nil {
		t.Fatal(err)
	}
	f := openTest(t, out)
	if err := f.Manifest.Unlock(id); err != nil {
		t.Fatal(err)
	}
	made := filepath.Join(dir, "made")
	a, err := f.Apply(context.Background(), "rootfs", []string{filepath.Join(dir, "v1")}, made, nil)
	if err != nil || a.Patched == 0 || !bytes.Equal(readFile(t, made), readFile(t, filepath.Join(dir, "v2"))) {
		t.Errorf("%+v, %v", a, err)
	}
}

// Signing again needs no identity and changes no byte of the payload.
func TestResignEncrypted(t *testing.T) {
	dir := t.TempDir()
	id := newIdentity(t)
	path := buildSealed(t, dir, id)
	f := openTest(t, path)
	signer, _ := testKey(t, "bob")
	out := filepath.Join(dir, "again.upb")
	if err := f.Resign(out, true, signer); err != nil {
		t.Fatal(err)
	}
	g, err := Open(out, testPolicy(t, "bob", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	if err := g.Manifest.Unlock(id); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Check(context.Background(), nil); err != nil || g.Digest != f.Digest {
		t.Errorf("%v, digest %v, want %v", err, g.Digest, f.Digest)
	}
}
