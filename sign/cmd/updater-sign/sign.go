// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
)

const aboutSign = `Usage: updater-sign sign --type TYPE --key KEY [--key KEY]... [--chain FILE] -o ENVELOPE FILE

Signs FILE and writes an envelope that contains it.

  updater-sign sign --type application/vnd.example+json --key release.key -o notes.dsse notes.json
`

func (c *command) sign(ctx context.Context, args []string) error {
	f := c.Flags("sign", aboutSign)
	payloadType := f.String("type", "", "payload `TYPE`, a media type; verify must ask for the same")
	out := f.String("o", "", "write the envelope to `ENVELOPE` (- for standard output)")
	keys := cli.KeyOptions(f)
	operands, err := c.Parse(f, args, "FILE")
	if err != nil {
		return err
	}
	if *payloadType == "" || *out == "" || len(keys.Refs) == 0 {
		return cli.Misuse("--type, --key and -o are needed")
	}
	if err := cli.Apart(*out, append(keys.Refs, operands...)...); err != nil {
		return err
	}
	payload, err := readFile(operands[0], sign.MaxEnvelope)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	signers, err := keys.Load(ctx, c.Program)
	if err != nil {
		return err
	}
	envelope, err := sign.Seal(*payloadType, payload, signers...)
	if err != nil {
		return err
	}
	return c.write(*out, envelope)
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

// write puts a result in place as a whole or not at all, and durably.
func (c *command) write(path string, b []byte) (err error) {
	if path == "-" {
		_, err := c.Stdout.Write(b)
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
	// Otherwise a power cut could leave the name on an empty file.
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
