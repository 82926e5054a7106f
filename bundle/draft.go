// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/updaterd/updaterd/bundle/provenance"
	"github.com/updaterd/updaterd/sign"
)

// A Draft is a bundle whose signatures nobody has checked, or that has none yet:
// it may come from anyone. It is for showing to a person, who has to be told so,
// and for signing; nothing is made or installed by it.
type Draft struct {
	Manifest *Manifest
	// Digest is that of the manifest's bytes, as in [Verified].
	Digest Digest
	// Signatures is how many there are, good or not.
	Signatures int
	// PayloadOffset is where the payload begins in the file.
	PayloadOffset int64

	payload []byte // of the envelope: the manifest
	file    *File
}

// OpenDraft opens a bundle without asking who signed it. The file is exactly as
// long as the manifest says.
func OpenDraft(path string) (*Draft, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	d, err := openDraft(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return d, nil
}

func openDraft(f *os.File) (*Draft, error) {
	head, err := ReadHead(f)
	if err != nil {
		return nil, err
	}
	d, err := unverified(head)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if err := CheckSize(size, d.Size()); err != nil {
		return nil, err
	}
	d.file = &File{
		Verified: &Verified{Manifest: d.Manifest, Digest: d.Digest, PayloadOffset: d.PayloadOffset, PayloadSize: d.Manifest.PayloadSize()},
		envelope: head[HeaderSize:], file: f,
	}
	return d, nil
}

func unverified(head []byte) (*Draft, error) {
	envelope, err := splitHead(head)
	if err != nil {
		return nil, err
	}
	payload, signatures, err := sign.Unverified(envelope, PayloadType)
	if err != nil {
		return nil, err
	}
	m, err := ParseManifest(payload)
	if err != nil {
		return nil, err
	}
	return &Draft{Manifest: m, Digest: Sum(payload), Signatures: signatures, PayloadOffset: int64(len(head)), payload: payload}, nil
}

// Close closes the file.
func (d *Draft) Close() error { return d.file.Close() }

// Size is the length of the file in bytes.
func (d *Draft) Size() int64 { return d.PayloadOffset + d.Manifest.PayloadSize() }

// Bytes are those of the manifest, which are what is signed, with [PayloadType].
func (d *Draft) Bytes() []byte { return d.payload }

// LogEntries is [File.LogEntries]: nobody has checked any.
func (d *Draft) LogEntries() ([]sign.LogEntry, error) { return d.file.LogEntries() }

// Provenance is [File.Provenance].
func (d *Draft) Provenance() (*provenance.Statement, error) { return d.file.Provenance() }

// Check is [File.Check]: it tells that the bundle is whole, not whose it is.
func (d *Draft) Check(ctx context.Context, progress func(done, total int64)) ([]Checked, error) {
	return d.file.Check(ctx, progress)
}

// Sign writes the bundle to out with the signatures of signers. It must have none
// yet: of a bundle that was signed before, [File.Resign] makes sure by whom.
func (d *Draft) Sign(out string, signers ...sign.Signer) error {
	if d.Signatures > 0 {
		return errors.New("sign bundle: it is signed already; resign it")
	}
	if err := d.file.Resign(out, false, signers...); err != nil {
		return fmt.Errorf("sign bundle: %w", err)
	}
	return nil
}

// A Detached signature was made elsewhere: a whole Envelope of the same manifest,
// or else the Signature of a Key over [sign.ToBeSigned].
type Detached struct {
	Envelope  []byte
	Signature []byte
	Key       crypto.PublicKey
}

// Attach writes the bundle to out with signatures beside those it has, if the
// policy accepts it then.
func (d *Draft) Attach(out string, policy *sign.Policy, signatures ...Detached) (*Verified, error) {
	v, err := d.attach(out, policy, signatures)
	if err != nil {
		return nil, fmt.Errorf("attach signatures: %w", err)
	}
	return v, nil
}

func (d *Draft) attach(out string, policy *sign.Policy, signatures []Detached) (_ *Verified, err error) {
	envelope := d.file.envelope
	for _, s := range signatures {
		if s.Envelope != nil {
			envelope, err = sign.Attach(envelope, PayloadType, s.Envelope)
		} else {
			envelope, err = sign.AttachSignature(envelope, PayloadType, s.Key, s.Signature)
		}
		if err != nil {
			return nil, err
		}
	}
	head, err := appendHead(nil, envelope)
	if err != nil {
		return nil, err
	}
	v, err := Verify(head, policy, time.Time{})
	if err != nil {
		return nil, err
	}
	return v, d.file.rewrite(out, envelope)
}
