// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/sign"
)

const aboutSign = `Usage: updater-sign sign --type TYPE --key KEY [--key KEY]... -o ENVELOPE FILE

Signs FILE and writes an envelope that contains it.

  updater-sign sign --type application/vnd.example+json --key release.key -o notes.dsse notes.json
`

func (c *command) sign(args []string) error {
	f := c.flags("sign", aboutSign)
	payloadType := f.String("type", "", "payload `TYPE`, a media type; verify must ask for the same")
	out := f.String("o", "", "write the envelope to `ENVELOPE` (- for standard output)")
	keys := c.keyOptions(f)
	operands, err := c.parse(f, args, 1)
	if err != nil {
		return err
	}
	if *payloadType == "" || *out == "" || len(keys.refs) == 0 {
		return c.misuse(f, "--type, --key and -o are needed")
	}
	payload, err := readFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	signers, err := keys.load(c)
	if err != nil {
		return err
	}
	envelope, err := sign.Seal(*payloadType, payload, signers...)
	if err != nil {
		return err
	}
	return c.write(*out, envelope)
}

// keyOptions are the options of every command that signs.
type keyOptions struct {
	refs     list
	passFile string
}

func (c *command) keyOptions(f *flag.FlagSet) *keyOptions {
	k := &keyOptions{}
	f.Var(&k.refs, "key", "private `KEY`, a PEM file; give it again for more signatures")
	f.StringVar(&k.passFile, "passphrase-file", "", "take the passphrase of the keys from the first line of `FILE`")
	return k
}

func (k *keyOptions) load(c *command) ([]sign.Signer, error) {
	var signers []sign.Signer
	for _, ref := range k.refs {
		s, err := sign.LoadSigner(context.Background(), ref, func() ([]byte, error) { return c.passphrase(k.passFile, ref) })
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return signers, nil
}

// readFile reads a file that is at most limit bytes long.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}

// write puts a result in place as a whole or not at all.
func (c *command) write(path string, b []byte) (err error) {
	if path == "-" {
		_, err := c.stdout.Write(b)
		return err
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return os.WriteFile(path, b, 0o644) // a device or a pipe: /dev/stdout
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			tmp.Close()
			os.Remove(tmp.Name())
		}
	}()
	if _, err := tmp.Write(b); err != nil {
		return err
	}
	if err := tmp.Chmod(0o644); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
