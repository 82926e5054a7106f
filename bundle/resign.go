// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"errors"
	"fmt"
	"io"

	"github.com/updaterd/updaterd/sign"
)

// Resign writes the bundle f to out with signatures of signers, which with add
// set join those that are there, and otherwise replace them. The manifest and
// the payload keep every byte, so what devices have stored of them stays good.
// out may be f's own path.
func (f *File) Resign(out string, add bool, signers ...sign.Signer) error {
	if err := f.resign(out, add, signers); err != nil {
		return fmt.Errorf("resign bundle: %w", err)
	}
	return nil
}

func (f *File) resign(out string, add bool, signers []sign.Signer) (err error) {
	if len(signers) == 0 {
		return errors.New("there is no key to sign with")
	}
	// Not read again from the file: these are the bytes that were verified.
	envelope := f.envelope
	if add {
		for _, s := range signers {
			if envelope, err = sign.Add(envelope, PayloadType, s); err != nil {
				return err
			}
		}
	} else if envelope, err = sign.Replace(envelope, PayloadType, signers...); err != nil {
		return err
	}
	return f.rewrite(out, envelope)
}

// rewrite writes the bundle with another envelope.
func (f *File) rewrite(out string, envelope []byte) error {
	head, err := appendHead(nil, envelope)
	if err != nil {
		return err
	}
	w, err := createReplacement(out)
	if err != nil {
		return err
	}
	defer w.discard()
	if _, err := w.Write(head); err != nil {
		return err
	}
	if _, err := f.file.Seek(f.PayloadOffset, io.SeekStart); err != nil {
		return err
	}
	if _, err := io.CopyN(w, f.file, f.PayloadSize); err != nil {
		return fmt.Errorf("copy payload: %w", err)
	}
	return w.commit()
}
