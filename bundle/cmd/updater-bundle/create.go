// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"errors"
	"flag"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutCreate = `Usage: updater-bundle create --compatible NAME --version VERSION --image CLASS=FILE (--key KEY | --unsigned) -o OUT [OPTION]...

Makes a bundle and signs it, or with --unsigned leaves that to "updater-bundle
sign", or "manifest" and "attach", where the key is. Each image is a raw image of a slot class. It is always
there in full; --delta-from adds a much smaller way for devices that have
exactly that older image, and --blocks one for devices that have some other.
--delta-from takes the older image itself, or the bundle that brought it to the
devices: the bundle is verified with --keyring, or without one must be signed
with one of the keys that sign now, and its image is made in a temporary file
beside OUT. "updater-bundle diff" tells what a delta will cost.

The same input, options and time give the same bytes, the signature apart. The
time is --created, else SOURCE_DATE_EPOCH, else now.

--compressor zstd has the program zstd compress the images, at level 19: what
devices download in full gets about a tenth smaller. It must be installed, and
its version, which then matters for the bytes, is noted in the manifest.

--sbom and --builder-id put evidence into the bundle, which devices never
download: a bill of materials (SPDX or CycloneDX), and a statement of provenance
(in-toto, SLSA) about the images and what they were made from. Nothing of it is
guessed; docs/evidence.md has what to give in CI.

--recipient encrypts the images: who has the identity of a recipient reads them,
and nobody else. Documents stay readable for all. With it the same input gives
other bytes each time. A --delta-from bundle that is encrypted needs --identity.
docs/encryption.md has what this protects and what not.

The build id of an image is BUILD_ID of the os-release found in it, which must
have an ID too. Compressed file systems hide it: then give it yourself.

  updater-bundle create --compatible demo-board --version 1.2.0 --image rootfs=v1.2.ext4 \
      --delta-from rootfs=v1.1.ext4 --delta-from rootfs=demo-1.0.0.upb \
      --key release.key -o demo-1.2.0.upb
`

func (c *command) create(ctx context.Context, args []string) error {
	f := c.Flags("create", aboutCreate)
	var o createOptions
	f.Var(&o.compatible, "compatible", "`NAME` of a kind of device this release is for; may be given again")
	f.StringVar(&o.version, "version", "", "`VERSION`, a label for people")
	f.StringVar(&o.channel, "channel", "", "`CHANNEL` of the release, signed: the policy of devices may ask other keys of it")
	f.Uint64Var(&o.sequence, "sequence", 0, "`NUMBER` that orders releases (default: the time in seconds)")
	f.Uint64Var(&o.floor, "floor", 0, "lowest `SEQUENCE` a device may install once it has confirmed this release")
	f.StringVar(&o.created, "created", "", "`TIME` of the release, in seconds since 1970 or as 2026-01-31T12:00:00Z")
	f.Var(&o.images, "image", "`CLASS=FILE`: the raw image for a slot class; may be given again")
	f.Var(&o.deltas, "delta-from", "`CLASS=OLDFILE[,build-id=ID]`: also make a delta from this older image or bundle; may be given again")
	f.Var(&o.buildIDs, "build-id", "`CLASS=ID`: the build id of an image")
	f.Var(&o.annotations, "annotation", "`KEY=VALUE`: signed text that devices ignore; may be given again")
	f.Int64Var(&o.chunkSize, "chunk-size", bundle.DefaultChunkSize, chunkSizeHelp)
	f.BoolVar(&o.blocks, "blocks", false, "also make a blocks recipe, for devices with some other older image")
	f.StringVar(&o.compressor, "compressor", "builtin", "`NAME` of what compresses: builtin or zstd")
	f.StringVar(&o.sbom, "sbom", "", "bill of materials to put into the bundle: a `FILE` in SPDX or CycloneDX")
	f.StringVar(&o.origin.Builder, "builder-id", "", "`URI` of what builds, such as that of a CI workflow; also state the provenance")
	f.StringVar(&o.origin.Source, "source-uri", "", "`URI` of the source that the images were built from, for the provenance")
	f.StringVar(&o.origin.Revision, "source-revision", "", "git `COMMIT` of that source")
	out := f.String("o", "", "write the bundle to `OUT`")
	f.Var(&o.recipients, "recipient", "`FILE` of whom to encrypt the images for; may be given again")
	unsigned := f.Bool("unsigned", false, "leave the bundle without a signature; no device accepts it until it is signed")
	keys, trust, ids := cli.KeyOptions(f), cli.TrustOptions(f), identityOptions(f)
	if _, err := c.Parse(f, args); err != nil {
		return err
	}
	for _, need := range []struct {
		missing bool
		what    string
	}{
		{len(o.compatible) == 0, "--compatible NAME"}, {o.version == "", "--version VERSION"},
		{len(o.images) == 0, "--image CLASS=FILE"}, {len(keys.Refs) == 0 && !*unsigned, "--key KEY, or --unsigned,"}, {*out == "", "-o OUT"},
	} {
		if need.missing {
			return cli.Misuse("%s is missing", need.what)
		}
	}
	if len(keys.Refs) > 0 && *unsigned {
		return cli.Misuse("--key and --unsigned contradict each other")
	}
	if err := cli.Apart(*out, keys.Refs...); err != nil {
		return err
	}
	if (o.origin.Source == "") != (o.origin.Revision == "") {
		return cli.Misuse("--source-uri and --source-revision go together")
	}
	if o.origin.Source != "" && o.origin.Builder == "" {
		return cli.Misuse("--source-uri is for the provenance, which needs --builder-id too")
	}
	spec, err := o.spec(isSet(f, "sequence"), c.Getenv)
	if err != nil {
		return cli.Misuse("%v", err)
	}
	if err := trust.Check(); err != nil {
		return err
	}
	if spec.Recipients, err = recipients(o.recipients); err != nil {
		return err
	}
	if spec.Identities, err = ids.load(); err != nil {
		return err
	}
	if o.origin.Builder != "" {
		o.origin.BuilderVersion = map[string]string{"updater-bundle": c.Version}
	}
	spec.Origin, spec.SBOM, spec.Unsigned = o.origin, o.sbom, *unsigned
	if spec.Signers, err = keys.Load(ctx, c.Program); err != nil {
		return err
	}
	if spec.Policy, err = believed(trust, spec.Signers); err != nil {
		return err
	}
	report, end := c.progress("building")
	spec.Progress = report
	spec.Note = func(s string) {
		end()
		fmt.Fprintf(c.Stderr, "note: %s\n", s)
	}
	err = bundle.Build(ctx, *out, spec)
	end()
	if errors.Is(err, sign.ErrUntrusted) && trust.Dir == "" {
		err = fmt.Errorf("%w; without --keyring an older bundle must be signed with a key that signs now", err)
	}
	if err != nil {
		return err
	}
	return c.describe(*out)
}

// believed are the keys that may have signed a bundle which is a source: those
// of the keyring, or else the public halves of those that sign; nil if there are none.
func believed(trust *cli.Trust, signers []sign.Signer) (*sign.Policy, error) {
	if trust.Dir != "" {
		return trust.Policy()
	}
	if len(signers) == 0 {
		return nil, nil
	}
	var public []crypto.PublicKey
	for _, s := range signers {
		key, err := s.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("public half of key %s: %w", s.KeyID(), err)
		}
		public = append(public, key)
	}
	keyring, err := sign.NewKeyring(public...)
	if err != nil {
		return nil, err
	}
	return keyring.Policy(1), nil
}

// describe tells what has just been built.
func (c *command) describe(path string) error {
	d, err := bundle.OpenDraft(path)
	if err != nil {
		return err
	}
	defer d.Close()
	fmt.Fprintf(c.Stdout, "%s: %s\n", path, size(d.Size()))
	if d.Signatures == 0 {
		fmt.Fprintf(c.Stdout, "not signed yet; its manifest has the digest %v\n", d.Digest)
	}
	printImages(c.Stdout, d.Manifest)
	return nil
}

type createOptions struct {
	compatible, images, deltas, buildIDs, annotations, recipients cli.List
	version, channel, created, compressor, sbom                   string
	origin                                                        bundle.Origin
	sequence, floor                                               uint64
	chunkSize                                                     int64
	blocks                                                        bool
}

func (o *createOptions) spec(sequenceSet bool, getenv func(string) (string, bool)) (bundle.Spec, error) {
	s := bundle.Spec{Compatible: o.compatible, Version: o.version, Channel: o.channel, Floor: o.floor, Sequence: o.sequence, ChunkSize: o.chunkSize, Blocks: o.blocks}
	err := checkChunkSize(o.chunkSize)
	if err != nil {
		return s, err
	}
	switch o.compressor {
	case "builtin":
	case bundle.CompressorZstd:
		s.Compressor = bundle.CompressorZstd
	default:
		return s, fmt.Errorf("--compressor %s: want builtin or zstd", o.compressor)
	}
	if s.Created, err = signedTime("--created", o.created, getenv); err != nil {
		return s, err
	}
	if !sequenceSet {
		s.Sequence = uint64(s.Created.Unix())
	}
	if s.Annotations, err = pairs("--annotation", o.annotations); err != nil {
		return s, err
	}
	ids, err := pairs("--build-id", o.buildIDs)
	if err != nil {
		return s, err
	}
	byClass := make(map[string]int)
	for _, v := range o.images {
		class, path, found := strings.Cut(v, "=")
		if !found || class == "" || path == "" {
			return s, fmt.Errorf("--image %s: want CLASS=FILE", v)
		}
		if _, twice := byClass[class]; twice {
			return s, fmt.Errorf("--image %s: class %q is given twice", v, class)
		}
		byClass[class] = len(s.Images)
		s.Images = append(s.Images, bundle.ImageSpec{Class: class, Path: path, BuildID: ids[class]})
		delete(ids, class)
	}
	for class := range ids {
		return s, fmt.Errorf("--build-id %s=%s: there is no --image of this class", class, ids[class])
	}
	for _, v := range o.deltas {
		class, src, err := source(v)
		i, known := byClass[class]
		if err == nil && !known {
			err = fmt.Errorf("--delta-from %s: there is no --image of class %q", v, class)
		}
		if err != nil {
			return s, err
		}
		s.Images[i].Deltas = append(s.Images[i].Deltas, src)
	}
	return s, nil
}

const chunkSizeHelp = "`BYTES` of a chunk, a power of two"

func checkChunkSize(n int64) error {
	if n < bundle.MinChunkSize || n > bundle.MaxChunkSize || n&(n-1) != 0 {
		return fmt.Errorf("--chunk-size %d: want a power of two from %d to %d", n, bundle.MinChunkSize, bundle.MaxChunkSize)
	}
	return nil
}

// source reads CLASS=OLDFILE[,build-id=ID].
func source(v string) (class string, s bundle.SourceSpec, err error) {
	class, path, found := strings.Cut(v, "=")
	if i := strings.LastIndex(path, ",build-id="); i >= 0 {
		path, s.BuildID = path[:i], path[i+len(",build-id="):]
		if s.BuildID == "" {
			found = false
		}
	}
	if !found || class == "" || path == "" {
		return "", s, fmt.Errorf("--delta-from %s: want CLASS=OLDFILE or CLASS=OLDFILE,build-id=ID", v)
	}
	s.Path = path
	return class, s, nil
}

// signedTime is the value of an option, else SOURCE_DATE_EPOCH, else now.
func signedTime(option, v string, getenv func(string) (string, bool)) (time.Time, error) {
	from := option
	if v == "" {
		from = "SOURCE_DATE_EPOCH"
		if v, _ = getenv(from); v == "" {
			return time.Now(), nil
		}
	}
	if seconds, err := strconv.ParseInt(v, 10, 64); err == nil && seconds >= 0 {
		return time.Unix(seconds, 0), nil
	}
	t, err := time.Parse(time.RFC3339, v)
	if err != nil || from != option || t.Unix() < 0 {
		return t, fmt.Errorf("%s %q: want seconds since 1970, or for %s a time like 2026-01-31T12:00:00Z", from, v, option)
	}
	return t, nil
}

// pairs reads KEY=VALUE options.
func pairs(option string, values []string) (map[string]string, error) {
	m := make(map[string]string)
	for _, v := range values {
		key, value, found := strings.Cut(v, "=")
		if !found || key == "" {
			return nil, fmt.Errorf("%s %s: there is no = in it", option, v)
		}
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("%s %s: %q is given twice", option, v, key)
		}
		m[key] = value
	}
	return m, nil
}

func isSet(f *flag.FlagSet, name string) (set bool) {
	f.Visit(func(g *flag.Flag) { set = set || g.Name == name })
	return set
}
