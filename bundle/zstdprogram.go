// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
)

// CompressorZstd is the program zstd (Spec.Compressor). It makes smaller frames
// than what is built in, and takes longer.
const CompressorZstd = "zstd"

// annotationCompressor says what made the frames, if it is not built in. Which
// bytes it makes depends on its version.
const annotationCompressor = "compressor"

const zstdLevel = "-19"

// A zstdProgram runs zstd once for each chunk.
type zstdProgram struct {
	ctx  context.Context
	path string
	// version is what the program says of itself, such as 1.5.4.
	version string
}

var zstdVersion = regexp.MustCompile(`\bv([0-9]+\.[0-9]+\.[0-9]+)\b`)

// findZstd looks for the program. ctx ends it while it works.
func findZstd(ctx context.Context) (*zstdProgram, error) {
	path, err := exec.LookPath(CompressorZstd)
	if err != nil {
		return nil, fmt.Errorf("find the compressor: %w; install zstd, or use the compressor that is built in", err)
	}
	z := &zstdProgram{ctx: ctx, path: path}
	out, err := z.run(nil, nil, "--version")
	if err != nil {
		return nil, err
	}
	m := zstdVersion.FindSubmatch(out)
	if m == nil {
		return nil, fmt.Errorf("%s --version says %.80q: this is not zstd, or none that is known", path, out)
	}
	z.version = string(m[1])
	return z, nil
}

func (z *zstdProgram) annotation() string {
	return fmt.Sprintf("zstd %s, level %s", z.version, zstdLevel[1:])
}

// run gives the program input and appends its output to out.
func (z *zstdProgram) run(input, out []byte, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(z.ctx, z.path, args...)
	// Variables like ZSTD_CLEVEL must not change what comes out.
	cmd.Env = []string{"LC_ALL=C"}
	stdout, stderr := bytes.NewBuffer(out), new(bytes.Buffer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), stdout, stderr
	if err := cmd.Run(); err != nil {
		if z.ctx.Err() != nil {
			return nil, z.ctx.Err()
		}
		return nil, fmt.Errorf("run %s %s: %w: %s", z.path, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// worker is the compressor of one goroutine. It has a file for the prefix,
// which the program reads by name.
func (z *zstdProgram) worker() (compressor, error) {
	f, err := os.CreateTemp("", "updater-bundle-prefix-")
	if err != nil {
		return nil, fmt.Errorf("create temporary file: %w", err)
	}
	return &zstdWorker{z, f}, nil
}

type zstdWorker struct {
	*zstdProgram
	prefix *os.File
}

func (w *zstdWorker) compress(chunk, prefix, scratch []byte) ([]byte, error) {
	args := []string{
		"-qq", zstdLevel, "--stdout",
		// As with what is built in: one thread for each chunk, and no digest besides the table's.
		"--single-thread", "--no-check",
		fmt.Sprintf("--stream-size=%d", len(chunk)),
	}
	if len(prefix) > 0 {
		_, err := w.prefix.WriteAt(prefix, 0)
		if err := errors.Join(err, w.prefix.Truncate(int64(len(prefix)))); err != nil {
			return nil, fmt.Errorf("write temporary file: %w", err)
		}
		// Not -D: that takes a prefix for a trained dictionary if it begins like one.
		args = append(args, "--patch-from="+w.prefix.Name())
	}
	return w.run(chunk, scratch, args...)
}

func (w *zstdWorker) close() {
	w.prefix.Close()
	os.Remove(w.prefix.Name())
}
