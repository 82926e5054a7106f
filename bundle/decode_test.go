// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/updaterd/updaterd/bundle/delta"
)

func newTestDecoder(t testing.TB) *Decoder {
	t.Helper()
	d, err := NewDecoder(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func compress(t testing.TB, b []byte, o ...zstd.EOption) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(b, nil)
}

func entryOf(kind Encoding, b []byte) Entry {
	return Entry{Kind: kind, Length: len(b), Digest: Sum(b)}
}

type brokenReader struct{}

func (brokenReader) ReadAt([]byte, int64) (int, error) { return 0, io.ErrNoProgress }

func TestDecode(t *testing.T) {
	d := newTestDecoder(t)
	chunk, other := text(testChunk, 1), text(testChunk, 2)
	source := append(noise(1000, 1), chunk...)
	source = append(source, noise(1000, 2)...)
	touched := bytes.Clone(source)
	touched[1500] ^= 1
	index, err := delta.NewIndex(bytes.NewReader(source), int64(len(source)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer index.Close()
	patch, err := index.Patch(chunk, 0)
	if err != nil {
		t.Fatal(err)
	}
	frame := compress(t, chunk)
	prefix := noise(2*testChunk, 5)
	like := slices.Concat(prefix[:1000], noise(1000, 6), prefix[5000:7000], noise(96, 6))
	prefixed := compress(t, like, zstd.WithEncoderDictRaw(0, prefix))
	if len(prefixed) > 1300 {
		t.Fatalf("a frame of %d bytes does not use its prefix", len(prefixed))
	}
	named := compress(t, like, zstd.WithEncoderDictRaw(7, prefix))
	damaged := bytes.Clone(prefix)
	damaged[500] ^= 1
	reader := func(b []byte) *bytes.Reader { return bytes.NewReader(b) }
	var none io.ReaderAt
	for name, tc := range map[string]struct {
		chunk []byte
		entry Entry
		enc   []byte
		src   io.ReaderAt
		size  int
		want  error

		prefix []byte
	}{
		"zero":                      {make([]byte, testChunk), entryOf(Zero, nil), nil, none, 0, nil, nil},
		"raw":                       {chunk, entryOf(Raw, chunk), chunk, none, 0, nil, nil},
		"zstd":                      {chunk, entryOf(Zstd, frame), frame, none, 0, nil, nil},
		"patch":                     {chunk, entryOf(Patch, patch), patch, reader(source), len(source), nil, nil},
		"zero for a chunk that is":  {chunk, entryOf(Zero, nil), nil, none, 0, ErrContent, nil},
		"raw of another image":      {chunk, entryOf(Raw, other), other, none, 0, ErrContent, nil},
		"frame of another image":    {other, entryOf(Zstd, frame), frame, none, 0, ErrContent, nil},
		"raw too short":             {chunk, entryOf(Raw, chunk[1:]), chunk[1:], none, 0, ErrContent, nil},
		"altered bytes":             {chunk, entryOf(Zstd, frame), append([]byte{1}, frame[1:]...), none, 0, ErrEncoded, nil},
		"bytes cut short":           {chunk, entryOf(Zstd, frame), frame[1:], none, 0, ErrEncoded, nil},
		"no bytes":                  {chunk, entryOf(Zstd, frame), nil, none, 0, ErrEncoded, nil},
		"not zstd":                  {chunk, entryOf(Zstd, chunk[:9]), chunk[:9], none, 0, ErrContent, nil},
		"frame cut short":           {chunk, entryOf(Zstd, frame[:len(frame)-3]), frame[:len(frame)-3], none, 0, ErrContent, nil},
		"frame of a longer chunk":   {chunk[:100], entryOf(Zstd, frame), frame, none, 0, ErrContent, nil},
		"frame of a shorter chunk":  {append(bytes.Clone(chunk), 1), entryOf(Zstd, frame), frame, none, 0, ErrContent, nil},
		"two frames":                {chunk, entryOf(Zstd, append(bytes.Clone(frame), frame...)), append(bytes.Clone(frame), frame...), none, 0, ErrContent, nil},
		"touched source":            {chunk, entryOf(Patch, patch), patch, reader(touched), len(touched), ErrSource, nil},
		"source cut short":          {chunk, entryOf(Patch, patch), patch, reader(source[:500]), 500, ErrSource, nil},
		"source lies about its end": {chunk, entryOf(Patch, patch), patch, reader(source[:500]), len(source), ErrSource, nil},
		"source cannot be read":     {chunk, entryOf(Patch, patch), patch, brokenReader{}, len(source), ErrSource, nil},
		"no source":                 {chunk, entryOf(Patch, patch), patch, none, 0, ErrSource, nil},
		"not a patch":               {chunk, entryOf(Patch, chunk[:50]), chunk[:50], reader(source), len(source), ErrSource, nil},
		"unknown encoding":          {chunk, entryOf(9, chunk), chunk, none, 0, ErrContent, nil},
		"prefix":                    {like, entryOf(Prefixed, prefixed), prefixed, none, 0, nil, prefix},
		"damaged prefix":            {like, entryOf(Prefixed, prefixed), prefixed, none, 0, ErrContent, damaged},
		"shorter prefix":            {like, entryOf(Prefixed, prefixed), prefixed, none, 0, ErrContent, prefix[testChunk:]},
		"no prefix":                 {like, entryOf(Prefixed, prefixed), prefixed, none, 0, ErrContent, nil},
		"dictionary with a name":    {like, entryOf(Prefixed, named), named, none, 0, ErrContent, prefix},
		"frame that needs a prefix": {like, entryOf(Zstd, prefixed), prefixed, none, 0, ErrContent, prefix},
		"frame that needs none":     {chunk, entryOf(Prefixed, frame), frame, none, 0, nil, prefix},
	} {
		t.Run(name, func(t *testing.T) {
			dst := noise(len(tc.chunk), 99)
			err := d.Decode(dst, Sum(tc.chunk), tc.entry, tc.enc, Basis{Source: tc.src, SourceSize: int64(tc.size), Prefix: tc.prefix})
			if !errors.Is(err, tc.want) {
				t.Fatalf("Decode: %v; want %v", err, tc.want)
			}
			if err == nil && !bytes.Equal(dst, tc.chunk) {
				t.Error("Decode gave other bytes without an error")
			}
			for _, e := range []error{ErrEncoded, ErrSource, ErrContent} {
				if e != tc.want && errors.Is(err, e) {
					t.Errorf("Decode: %v; it is %v too, so a caller cannot tell what to do", err, e)
				}
			}
		})
	}
}

// A few signed bytes that ask for gigabytes get an error, and no memory.
func TestZipBombFrame(t *testing.T) {
	d := newTestDecoder(t)
	huge := make([]byte, 256<<20)
	bombs := map[string][]byte{
		"one frame that says its size": compress(t, huge),
		"window of 128 MiB":            compress(t, huge, zstd.WithWindowSize(128<<20), zstd.WithSingleSegment(false)),
	}
	// A frame made as a stream does not say its size.
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b, zstd.WithWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for range 256 {
		if _, err := z.Write(huge[:1<<20]); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	bombs["frame that does not say its size"] = b.Bytes()
	huge = nil
	dst := make([]byte, MaxChunkSize)
	prefix := noise(MaxPrefix, 1)
	bombs["one frame with a prefix"] = compress(t, make([]byte, 64<<20), zstd.WithEncoderDictRaw(0, prefix))
	for name, enc := range bombs {
		kind := Zstd
		if strings.Contains(name, "prefix") {
			kind = Prefixed
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := d.Decode(dst, Sum(nil), entryOf(kind, enc), enc, Basis{Prefix: prefix})
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrContent) {
			t.Errorf("%s: Decode: %v; want ErrContent", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
			t.Errorf("%s of %d bytes: %d bytes allocated", name, len(enc), n)
		}
	}
}

// A decoder is used for every chunk of an image. Another prefix costs it nothing
// that grows with the prefix, and one chunk does not see that of another.
func TestDecoderIsUsedAgain(t *testing.T) {
	d := newTestDecoder(t)
	type frame struct{ prefix, chunk, enc []byte }
	var frames []frame
	for i := range uint64(8) {
		prefix := noise(1<<20, i)
		chunk := append(bytes.Clone(prefix[1000:9000]), noise(200, i)...)
		enc := compress(t, chunk, zstd.WithEncoderDictRaw(0, prefix), zstd.WithEncoderLevel(zstd.SpeedBestCompression))
		if len(enc) > 1000 {
			t.Fatalf("a frame of %d bytes does not use its prefix", len(enc))
		}
		frames = append(frames, frame{prefix, chunk, enc})
	}
	dst := make([]byte, len(frames[0].chunk))
	decode := func(f frame, kind Encoding, prefix []byte) error {
		return d.Decode(dst, Sum(f.chunk), entryOf(kind, f.enc), f.enc, Basis{Prefix: prefix})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i, f := range frames {
		if err := decode(f, Prefixed, f.prefix); err != nil {
			t.Fatal(err)
		}
		if err := decode(f, Zstd, nil); !errors.Is(err, ErrContent) {
			t.Errorf("frame %d without its prefix: %v; want ErrContent", i, err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 2<<20 {
		t.Errorf("%d bytes allocated for %d prefixes of 1 MiB", n, len(frames))
	}
}
