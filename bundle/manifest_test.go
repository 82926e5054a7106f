// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/updaterd/updaterd/bundle/canonical"
	"github.com/updaterd/updaterd/sign"
	"pgregory.net/rapid"
)

func TestManifestComesBack(t *testing.T) {
	m := testManifest()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, got, cmpopts.IgnoreUnexported(Image{})); d != "" {
		t.Errorf("manifest after a round trip (-want +got):\n%s", d)
	}
	last := m.Images[1].Recipes[0].Data
	if got := m.PayloadSize(); got != last.Offset+last.Length {
		t.Errorf("PayloadSize() = %d; want %d", got, last.Offset+last.Length)
	}
}

// A manifest is refused even though a trusted key signed it.
func TestSignedButMalformedManifest(t *testing.T) {
	signer, ring := testKey(t, "alice")
	refuse := func(t *testing.T, payload []byte, want string) {
		t.Helper()
		envelope, err := sign.Seal(PayloadType, payload, signer)
		if err != nil {
			t.Fatal(err)
		}
		head, err := appendHead(nil, envelope)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Verify(head, ring.Policy(1), time.Time{})
		if v != nil || !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), want) {
			t.Errorf("Verify = %v, %v; want ErrMalformed with %q", v, err, want)
		}
	}
	good, err := testManifest().Marshal()
	if err != nil {
		t.Fatal(err)
	}

	// As text: what a JSON reader would let pass.
	for name, tc := range map[string]struct{ old, new, want string }{
		"duplicate key":           {`"version":"1.2.0"`, `"version":"1.1.0","version":"1.2.0"`, "canonical"},
		"duplicate nested key":    {`"class":"bootloader"`, `"class":"rootfs","class":"bootloader"`, "canonical"},
		"case-folded key":         {`"sequence":7`, `"Sequence":7`, "canonical"},
		"case-folded twin":        {`"sequence":7`, `"sequence":7,"SEQUENCE":8`, "canonical"},
		"kelvin sign as k":        {`"chunk_size"`, "\"chun\u212a_size\"", "canonical"},
		"unknown key":             {`"sequence":7`, `"sequence":7,"speed":1`, "unknown field"},
		"unknown nested key":      {`"kind":"full"`, `"kind":"full","dictionary":1`, "unknown field"},
		"keys in other order":     {`"sequence":7,"floor":5`, `"floor":5,"sequence":7`, "canonical"},
		"float sequence":          {`"sequence":7`, `"sequence":7.0`, "sequence"},
		"exponent":                {`"sequence":7`, `"sequence":7e0`, "sequence"},
		"negative sequence":       {`"sequence":7`, `"sequence":-7`, "sequence"},
		"sequence over 64 bits":   {`"sequence":7`, `"sequence":18446744073709551616`, "sequence"},
		"leading zero":            {`"sequence":7`, `"sequence":07`, "invalid"},
		"sequence as text":        {`"sequence":7`, `"sequence":"7"`, "sequence"},
		"null":                    {`"floor":5`, `"floor":null`, "canonical"},
		"missing floor":           {`"floor":5,`, ``, "canonical"},
		"null source":             {`"kind":"full",`, `"kind":"full","source":null,`, "canonical"},
		"empty requires":          {`"format":1,`, `"format":1,"requires":[],`, "canonical"},
		"unknown feature":         {`"format":1,`, `"format":1,"requires":["dictionaries"],`, `requires the feature "dictionaries"`},
		"empty build id":          {`"build_id":"20260131"`, `"build_id":""`, "canonical"},
		"space":                   {`"sequence":7`, `"sequence": 7`, "canonical"},
		"needless escape":         {`"1.2.0"`, `"1.2\u002e0"`, "canonical"},
		"escaped angle bracket":   {`<line>`, `\u003cline\u003e`, "canonical"},
		"time with an offset":     {`2026-01-31T12:00:00Z`, `2026-01-31T13:00:00+01:00`, "UTC"},
		"time with a zero offset": {`2026-01-31T12:00:00Z`, `2026-01-31T12:00:00+00:00`, ""},
		"time with a fraction":    {`2026-01-31T12:00:00Z`, `2026-01-31T12:00:00.5Z`, "whole seconds"},
		"upper-case digest":       {Sum([]byte("new")).String(), strings.ToUpper(Sum([]byte("new")).String()), "digest"},
		"other digest":            {Sum([]byte("new")).String(), "md5:d41d8cd98f00b204e9800998ecf8427e", "digest"},
		"short digest":            {Sum([]byte("new")).String(), "sha256:00", "digest"},
		"format 2":                {`"format":1`, `"format":2`, "format 2"},
		"format 0":                {`"format":1`, `"format":0`, "format 0"},
		"fraction of a format":    {`"format":1`, `"format":1.5`, "format"},
		"offset over 63 bits":     {`"offset":0`, `"offset":9223372036854775808`, "offset"},
		"not UTF-8":               {`é`, "\xff", ""},
	} {
		t.Run(name, func(t *testing.T) {
			payload := bytes.Replace(good, []byte(tc.old), []byte(tc.new), 1)
			if bytes.Equal(payload, good) {
				t.Fatalf("%q is not in the manifest", tc.old)
			}
			refuse(t, payload, tc.want)
		})
	}
	for name, payload := range map[string][]byte{
		"trailing newline": append(bytes.Clone(good), '\n'),
		"trailing object":  append(bytes.Clone(good), "{}"...),
		"trailing NUL":     append(bytes.Clone(good), 0),
		"leading space":    append([]byte(" "), good...),
		"byte order mark":  append([]byte("\xef\xbb\xbf"), good...),
		"cut short":        good[:len(good)-1],
		"empty object":     []byte("{}"),
		"null":             []byte("null"),
		"array":            []byte("[]"),
		"deep nesting":     bytes.Repeat([]byte("["), 100_000),
	} {
		t.Run(name, func(t *testing.T) { refuse(t, payload, "") })
	}

	// As values: what well-formed JSON can still say.
	for name, tc := range manifestAttacks {
		t.Run(name, func(t *testing.T) {
			m := testManifest()
			tc.edit(m)
			if _, err := m.Marshal(); err == nil {
				t.Error("Marshal takes it")
			}
			payload, err := canonical.Marshal(m)
			if err != nil {
				return // JSON cannot even say it
			}
			refuse(t, payload, tc.want)
		})
	}
}

var manifestAttacks = map[string]struct {
	edit func(m *Manifest)
	want string
}{
	"duplicate class":       {func(m *Manifest) { m.Images[1].Class = "rootfs" }, `two images of class "rootfs"`},
	"class with a slash":    {func(m *Manifest) { m.Images[0].Class = "../rootfs" }, "class"},
	"class with a dot":      {func(m *Manifest) { m.Images[0].Class = "rootfs.a" }, "class"},
	"class with a NUL":      {func(m *Manifest) { m.Images[0].Class = "root\x00fs" }, "class"},
	"class in upper case":   {func(m *Manifest) { m.Images[0].Class = "Rootfs" }, "class"},
	"long class":            {func(m *Manifest) { m.Images[0].Class = strings.Repeat("a", maxClass+1) }, "class"},
	"no class":              {func(m *Manifest) { m.Images[0].Class = "" }, "class"},
	"version with newline":  {func(m *Manifest) { m.Version = "1.0\n" }, "version"},
	"version with a slash":  {func(m *Manifest) { m.Version = "1/0" }, "version"},
	"version with escape":   {func(m *Manifest) { m.Version = "1\x1b[2J" }, "version"},
	"version as an option":  {func(m *Manifest) { m.Version = "-rf" }, "version"},
	"no version":            {func(m *Manifest) { m.Version = "" }, "version"},
	"long version":          {func(m *Manifest) { m.Version = strings.Repeat("1", maxLabel+1) }, "version"},
	"compatible with none":  {func(m *Manifest) { m.Compatible = nil }, "compatible"},
	"compatible twice":      {func(m *Manifest) { m.Compatible = []string{"a", "a"} }, "compatible"},
	"channel with a slash":  {func(m *Manifest) { m.Channel = "a/b" }, "channel"},
	"channel with a NUL":    {func(m *Manifest) { m.Channel = "a\x00" }, "channel"},
	"channel in upper case": {func(m *Manifest) { m.Channel = "Stable" }, "channel"},
	"long channel":          {func(m *Manifest) { m.Channel = strings.Repeat("a", maxClass+1) }, "channel"},
	"compatible empty":      {func(m *Manifest) { m.Compatible = []string{""} }, "compatible"},
	"compatible non-ASCII":  {func(m *Manifest) { m.Compatible = []string{"bоard"} }, "compatible"}, // a Cyrillic o
	"too many compatible": {func(m *Manifest) {
		for i := range MaxCompatible {
			m.Compatible = append(m.Compatible, fmt.Sprint(i))
		}
	}, "compatible"},
	"build id with a quote":     {func(m *Manifest) { m.Images[0].BuildID = `a"b` }, "build id"},
	"source build id":           {func(m *Manifest) { m.Images[0].Recipes[0].Source.BuildID = "a b" }, "build id"},
	"floor above the sequence":  {func(m *Manifest) { m.Floor = 8 }, "floor"},
	"time before 1970":          {func(m *Manifest) { m.Created = time.Unix(-1, 0).UTC() }, "created"},
	"annotation key":            {func(m *Manifest) { m.Annotations = map[string]string{"a/b": ""} }, "annotation"},
	"annotation with an escape": {func(m *Manifest) { m.Annotations = map[string]string{"a": "\x1b[2J"} }, "annotation"},
	"annotation with U+2028":    {func(m *Manifest) { m.Annotations = map[string]string{"a": "\u2028"} }, "annotation"},
	"long annotation":           {func(m *Manifest) { m.Annotations = map[string]string{"a": strings.Repeat("a", maxAnnotationValue+1)} }, "annotation"},
	"too many annotations": {func(m *Manifest) {
		for i := range maxAnnotations {
			m.Annotations[fmt.Sprint(i)] = ""
		}
	}, "annotations"},

	"no images": {func(m *Manifest) { m.Images = nil }, "images"},
	"too many images": {func(m *Manifest) {
		for i := range MaxImages {
			img := m.Images[1]
			img.Class = fmt.Sprint("class", i)
			m.Images = append(m.Images, img)
		}
		m.place()
	}, "images"},
	"zero size":            {func(m *Manifest) { m.Images[0].Size = 0 }, "bytes"},
	"negative size":        {func(m *Manifest) { m.Images[0].Size = -1 }, "bytes"},
	"size near 2^63":       {func(m *Manifest) { m.Images[0].Size = math.MaxInt64 }, "bytes"},
	"zero chunk size":      {func(m *Manifest) { m.Images[0].ChunkSize = 0 }, "chunk size"},
	"negative chunk size":  {func(m *Manifest) { m.Images[0].ChunkSize = -testChunk }, "chunk size"},
	"lowest chunk size":    {func(m *Manifest) { m.Images[0].ChunkSize = math.MinInt64 }, "chunk size"},
	"odd chunk size":       {func(m *Manifest) { m.Images[0].ChunkSize = testChunk + 1 }, "chunk size"},
	"chunk of one byte":    {func(m *Manifest) { m.Images[0].ChunkSize = 1 }, "chunk size"},
	"chunk size too large": {func(m *Manifest) { m.Images[0].ChunkSize = 2 * MaxChunkSize }, "chunk size"},
	"too many chunks": {func(m *Manifest) {
		m.Images[0].Size = MaxChunks*testChunk + 1
		m.Images[0].setTables()
		m.place()
	}, "bytes"},
	"image longer than its table": {func(m *Manifest) { m.Images[0].Size += testChunk }, "chunk table"},
	"table longer than the image": {func(m *Manifest) { m.Images[0].Chunks.Length += DigestSize; m.place() }, "chunk table"},
	"recipe table too short":      {func(m *Manifest) { m.Images[0].Recipes[0].Table.Length -= EntrySize; m.place() }, "table"},
	"negative table":              {func(m *Manifest) { m.Images[0].Recipes[0].Table.Length = -36; m.place() }, "table"},

	"member not in the manifest": {func(m *Manifest) { m.Images[1].Recipes[0].Data.Offset++ }, "no gap"},
	"overlap":                    {func(m *Manifest) { m.Images[1].Recipes[0].Data.Offset-- }, "no overlap"},
	"gap at the start":           {func(m *Manifest) { m.Images[0].Chunks.Offset++ }, "no gap"},
	"same extent twice":          {func(m *Manifest) { m.Images[0].Recipes[1].Data = m.Images[0].Recipes[0].Data }, "want"},
	"offset out of range":        {func(m *Manifest) { m.Images[1].Recipes[0].Data.Offset = 1 << 40 }, "no gap"},
	"negative offset":            {func(m *Manifest) { m.Images[0].Chunks.Offset = -1 }, "payload offset -1"},
	"offset near 2^63":           {func(m *Manifest) { m.Images[0].Recipes[0].Data.Offset = math.MaxInt64 }, "want"},
	"negative length":            {func(m *Manifest) { m.Images[0].Recipes[0].Data.Length = -1; m.place() }, "data"},
	"length near 2^63":           {func(m *Manifest) { m.Images[0].Recipes[0].Data.Length = math.MaxInt64; m.place() }, "data"},
	"lengths that wrap":          {func(m *Manifest) { m.Images[0].Recipes[0].Data.Length = math.MinInt64; m.place() }, "data"},
	"data longer than image":     {func(m *Manifest) { m.Images[1].Recipes[0].Data.Length = 2; m.place() }, "data"},
	"full before deltas": {func(m *Manifest) {
		data := []Extent{m.Images[0].Recipes[2].Data, m.Images[0].Recipes[0].Data}
		m.Images[0].Recipes[0].Data, m.Images[0].Recipes[2].Data = data[0], data[1]
	}, "payload offset"},

	"full recipe first": {func(m *Manifest) {
		r := m.Images[0].Recipes
		r[0], r[2] = r[2], r[0]
		m.place()
	}, "full recipe last"},
	"no full recipe":       {func(m *Manifest) { m.Images[0].Recipes = m.Images[0].Recipes[:2]; m.place() }, "full recipe last"},
	"two full recipes":     {func(m *Manifest) { m.Images[0].Recipes[1] = m.Images[0].Recipes[2]; m.place() }, "full recipe last"},
	"no recipes":           {func(m *Manifest) { m.Images[0].Recipes = nil; m.place() }, "recipes"},
	"unknown kind":         {func(m *Manifest) { m.Images[0].Recipes[0].Kind = "frames" }, "unknown kind"},
	"negative prefix":      {func(m *Manifest) { m.Images[0].Recipes[0].Prefix = -1 }, "prefix"},
	"prefix too long":      {func(m *Manifest) { m.Images[0].Recipes[2].Prefix = MaxPrefix + 1 }, "prefix"},
	"delta with frames":    {func(m *Manifest) { m.Images[0].Recipes[0].Frame = MinFrame }, "frame"},
	"full with frames":     {func(m *Manifest) { m.Images[0].Recipes[2].Frame = MinFrame }, "frame"},
	"blocks with a source": {func(m *Manifest) { m.addBlocks().Source = &Source{Size: 1} }, "source"},
	"blocks, no frames":    {func(m *Manifest) { m.addBlocks().Frame = 0 }, "frame"},
	"blocks before a delta": {func(m *Manifest) {
		m.addBlocks()
		r := m.Images[0].Recipes
		r[0], r[2] = r[2], r[0]
		m.place()
	}, "deltas come first"},
	"blocks twice": {func(m *Manifest) {
		m.addBlocks()
		m.Images[0].Recipes[1] = m.Images[0].Recipes[2]
		m.place()
	}, "at most one blocks"},
	"blocks last":           {func(m *Manifest) { m.addBlocks(); m.Images[0].Recipes = m.Images[0].Recipes[:3]; m.place() }, "exactly one full recipe last"},
	"frames too short":      {func(m *Manifest) { m.addBlocks().Frame = MinFrame / 2 }, "frame"},
	"frames too long":       {func(m *Manifest) { m.addBlocks().Frame = 2 * testChunk }, "frame"},
	"negative frames":       {func(m *Manifest) { m.addBlocks().Frame = -MinFrame }, "frame"},
	"frame table too long":  {func(m *Manifest) { m.addBlocks().Table.Length = 12 * FrameEntrySize; m.place() }, "table"},
	"part of a frame entry": {func(m *Manifest) { m.addBlocks().Table.Length = FrameEntrySize + 1; m.place() }, "table"},
	"negative frame table":  {func(m *Manifest) { m.addBlocks().Table.Length = -FrameEntrySize; m.place() }, "table"},
	"kind in upper case":    {func(m *Manifest) { m.Images[0].Recipes[0].Kind = "Delta" }, "unknown kind"},
	"delta without source":  {func(m *Manifest) { m.Images[0].Recipes[0].Source = nil }, "source"},
	"full with a source":    {func(m *Manifest) { m.Images[0].Recipes[2].Source = &Source{Size: 1} }, "source"},
	"source of no size":     {func(m *Manifest) { m.Images[0].Recipes[0].Source.Size = 0 }, "source"},
	"source of 2^63-1":      {func(m *Manifest) { m.Images[0].Recipes[0].Source.Size = math.MaxInt64 }, "source"},
	"two deltas, one image": {func(m *Manifest) { m.Images[0].Recipes[1].Source = m.Images[0].Recipes[0].Source }, "same source"},
	"too many recipes": {func(m *Manifest) {
		var all []Recipe
		for i := range MaxRecipes {
			r := m.Images[0].Recipes[0]
			r.Source = &Source{Digest: Sum([]byte{byte(i)}), Size: 1}
			all = append(all, r)
		}
		m.Images[0].Recipes = append(all, m.Images[0].Recipes...)
		m.place()
	}, "recipes"},
}

// The largest release that the limits allow does not come near an overflow, and
// neither JSON nor arithmetic loses a bit on the way.
func TestLargestManifest(t *testing.T) {
	m := testManifest()
	m.Sequence, m.Floor = math.MaxUint64, math.MaxUint64
	img := &m.Images[0]
	img.ChunkSize, img.Size = MaxChunkSize, MaxChunks*MaxChunkSize
	img.Recipes[0].Data.Length = img.Size
	img.Recipes[1].Data.Length = img.Size
	img.Recipes[2].Data.Length = img.Size
	img.setTables()
	m.place()
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, got, cmpopts.IgnoreUnexported(Image{})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if n := got.Images[0].ChunkCount(); n != MaxChunks {
		t.Errorf("ChunkCount() = %d; want %d", n, MaxChunks)
	}
	if n := got.Images[0].ChunkLength(MaxChunks - 1); n != MaxChunkSize {
		t.Errorf("ChunkLength(last) = %d; want %d", n, MaxChunkSize)
	}
	if worst := int64(MaxImages) * (MaxRecipes + 1) * MaxChunks * (MaxChunkSize + DigestSize + EntrySize); worst < 0 || worst > math.MaxInt64/4 {
		t.Errorf("the limits allow a payload of %d bytes", worst)
	}
}

func genManifest(t *rapid.T) *Manifest {
	label := rapid.StringMatching(`[A-Za-z0-9][A-Za-z0-9._+~:,@=-]{0,20}`)
	m := &Manifest{
		Format:     Format,
		Compatible: rapid.SliceOfNDistinct(label, 1, 4, rapid.ID).Draw(t, "compatible"),
		Version:    label.Draw(t, "version"),
		Sequence:   rapid.Uint64().Draw(t, "sequence"),
		Created:    time.Unix(rapid.Int64Range(0, 1<<36).Draw(t, "created"), 0).UTC(),
		Annotations: rapid.MapOfN(rapid.StringMatching(`[a-z0-9][a-z0-9._-]{0,8}`),
			rapid.StringMatching("[ -~\n\té世😀]{0,30}"), -1, 4).Draw(t, "annotations"),
	}
	if len(m.Annotations) == 0 {
		m.Annotations = nil
	}
	m.Floor = rapid.Uint64Range(0, m.Sequence).Draw(t, "floor")
	digest := rapid.Custom(func(t *rapid.T) Digest { return Sum(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "digest")) })
	for _, class := range rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9][a-z0-9-]{0,8}`), 1, 4, rapid.ID).Draw(t, "classes") {
		img := Image{Class: class, Digest: digest.Draw(t, "image"), ChunkSize: MinChunkSize << rapid.IntRange(0, 10).Draw(t, "chunk size")}
		img.Size = rapid.Int64Range(1, MaxChunks*img.ChunkSize).Draw(t, "size")
		img.Chunks.Digest = digest.Draw(t, "chunks")
		data := rapid.Int64Range(0, img.Size)
		for _, d := range rapid.SliceOfNDistinct(digest, 0, 3, rapid.ID).Draw(t, "sources") {
			s := &Source{Digest: d, Size: rapid.Int64Range(1, MaxChunks*MaxChunkSize).Draw(t, "source size"), BuildID: label.Draw(t, "build id")}
			img.Recipes = append(img.Recipes, Recipe{Kind: KindDelta, Source: s, Data: Extent{Length: data.Draw(t, "data")}})
		}
		prefix := rapid.Int64Range(0, MaxPrefix)
		if rapid.Bool().Draw(t, "blocks") {
			img.Recipes = append(img.Recipes, Recipe{
				Kind: KindBlocks, Frame: frameOf(img.Size, img.ChunkSize), Prefix: prefix.Draw(t, "frame prefix"), Data: Extent{Length: data.Draw(t, "data")},
			})
		}
		img.Recipes = append(img.Recipes, Recipe{Kind: KindFull, Prefix: prefix.Draw(t, "prefix"), Data: Extent{Length: data.Draw(t, "data")}})
		img.setTables()
		m.Images = append(m.Images, img)
	}
	m.place()
	return m
}

func TestAnyManifestComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genManifest(t)
		b, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseManifest(b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, got, cmpopts.IgnoreUnexported(Image{})); d != "" {
			t.Fatalf("(-want +got):\n%s", d)
		}
	})
}

// What is accepted has one form only: parse, marshal, the same bytes.
func FuzzManifest(f *testing.F) {
	good, err := testManifest().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(append(bytes.Clone(good), ' '))
	if sealed, err := sealedManifest(f, newIdentity(f)).Marshal(); err != nil {
		f.Fatal(err)
	} else {
		f.Add(sealed)
	}
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseManifest(b)
		if err != nil {
			if m != nil || !errors.Is(err, ErrMalformed) {
				t.Fatalf("ParseManifest = %v, %v; want nil and ErrMalformed", m, err)
			}
			return
		}
		again, err := m.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("marshal: %v\n%q\n%q", err, again, b)
		}
		if !json.Valid(b) || m.PayloadSize() < 0 {
			t.Fatalf("accepted %q", b)
		}
	})
}

// addBlocks gives the first image a blocks recipe.
func (m *Manifest) addBlocks() *Recipe {
	img := &m.Images[0]
	r := Recipe{Kind: KindBlocks, Frame: MinFrame, Prefix: 1000, Table: Table{Extent: Extent{Length: 11 * FrameEntrySize}}, Data: Extent{Length: 700}}
	img.Recipes = slices.Insert(img.Recipes, len(img.Recipes)-1, r)
	m.place()
	return img.Blocks()
}
