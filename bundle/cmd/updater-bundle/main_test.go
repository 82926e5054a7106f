// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/updaterd/updaterd/bundle"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/sign/cli"
	"github.com/updaterd/updaterd/sign/cli/clitest"
)

func TestMain(m *testing.M) {
	// Only root has the makers of file systems on the path.
	os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin")
	clitest.Main(m, "updater-bundle", main)
}

func TestScripts(t *testing.T) {
	clitest.Run(t, map[string]clitest.Command{
		"key": key, "seal": sealFile, "image": image, "flip": flip, "grow": grow,
		"payload": payload, "fill": fill, "gzip": gzipFile, "tree": tree, "ext4": ext4,
		"eckey": ecKey,
	})
}

// key NAME [PASSPHRASE]: NAME.key is a private key, keyring NAME.keys holds its public half.
func key(ts *testscript.TestScript, _ bool, args []string) {
	name := args[0]
	var private, public []byte
	if len(args) > 1 {
		var err error
		private, public, err = sign.GenerateKey(sign.Ed25519, []byte(args[1]))
		ts.Check(err)
	} else {
		k := ed25519.NewKeyFromSeed([]byte(fmt.Sprintf("%-32s", name)))
		private, public = pemOf(ts, k)
	}
	ts.Check(os.WriteFile(ts.MkAbs(name+".key"), private, 0o600))
	ts.Check(os.MkdirAll(ts.MkAbs(name+".keys"), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(name+".keys/"+name+".pub"), public, 0o600))
}

// sealFile NAME MANIFEST OUT: NAME.key signs a manifest, as updater-sign does elsewhere.
func sealFile(ts *testscript.TestScript, _ bool, args []string) {
	signer, err := sign.LoadSigner(context.Background(), ts.MkAbs(args[0]+".key"), nil)
	ts.Check(err)
	payload, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	envelope, err := sign.Seal(bundle.PayloadType, payload, signer)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), envelope, 0o600))
}

// ecKey NAME DIR: NAME.key is a private ECDSA key, DIR/NAME.pub its public half.
func ecKey(ts *testscript.TestScript, _ bool, args []string) {
	private, public, err := sign.GenerateKey(sign.ECDSAP256, nil)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".key"), private, 0o600))
	ts.Check(os.MkdirAll(ts.MkAbs(args[1]), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[1]+"/"+args[0]+".pub"), public, 0o600))
}

func pemOf(ts *testscript.TestScript, k ed25519.PrivateKey) (private, public []byte) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	ts.Check(err)
	pub, err := x509.MarshalPKIXPublicKey(k.Public())
	ts.Check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub})
}

// image FILE BUILD: a file of 400000 bytes with an os-release; images of
// different builds differ in a few places.
func image(ts *testscript.TestScript, _ bool, args []string) {
	r := rand.NewChaCha8([32]byte{1})
	b := make([]byte, 400000)
	r.Read(b)
	clear(b[200000:300000])
	block := b[8<<10:][:1<<10]
	clear(block)
	copy(block, fmt.Sprintf("NAME=Demo\nID=demo\nBUILD_ID=%s\n", args[1]))
	for at := 20000; at < 390000; at += 30000 {
		copy(b[at:], args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// flip FILE OFFSET: one bit of the file changes; a negative offset counts from the end.
func flip(ts *testscript.TestScript, _ bool, args []string) {
	at, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// grow FILE N: the file becomes N bytes longer, or shorter if N is negative.
func grow(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), info.Size()+n))
}

func TestServe(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a b.upb"), []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "escape.txt")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, w := io.Pipe()
	c := newCommand()
	c.Stdout, c.Stderr = w, io.Discard
	ended := make(chan int, 1)
	go func() {
		ended <- c.Run(ctx, c.commands(), []string{"serve", "--listen", "127.0.0.1:0", dir})
		w.Close()
	}()
	// A response is only complete once its line is written, so somebody must
	// read while the client waits.
	lines := make(chan string, 100)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	next := func() string {
		line, open := <-lines
		if !open {
			t.Fatal("the output ends")
		}
		return line
	}
	base := strings.Fields(next())
	url := next()
	if want := base[len(base)-1] + "a%20b.upb"; url != want {
		t.Fatalf("URL %q; want %q", url, want)
	}
	for _, tc := range []struct{ url, span, body, line string }{
		{url, "", "0123456789", "GET /a%20b.upb 200 - 10 bytes"},
		{url, "bytes=2-4", "234", "GET /a%20b.upb 206 bytes=2-4 3 bytes"},
		{url, "bytes=20-", "", "GET /a%20b.upb 416 bytes=20- "},
		{base[len(base)-1] + "none.upb", "", "", "GET /none.upb 404 - "},
		{base[len(base)-1] + "escape.txt", "", "", "GET /escape.txt "},
	} {
		req, err := http.NewRequest("GET", tc.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.span != "" {
			req.Header.Set("Range", tc.span)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || tc.body != "" && string(body) != tc.body || strings.Contains(string(body), "root:") {
			t.Errorf("%s %s: %q, %v; want %q", tc.url, tc.span, body, err, tc.body)
		}
		if line := next(); !strings.HasPrefix(line, tc.line) {
			t.Errorf("line %q; want %q", line, tc.line)
		}
	}
	resp, err := http.Post(url, "text/plain", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if line := next(); resp.StatusCode != http.StatusMethodNotAllowed || !strings.HasPrefix(line, "POST /a%20b.upb 405 - ") {
		t.Errorf("POST: %d, %q", resp.StatusCode, line)
	}
	cancel()
	if status := <-ended; status != cli.ExitDone {
		t.Errorf("serve ends with %d", status)
	}
}

// Every command's help has a usage line and an example, and exits with 0.
func TestHelp(t *testing.T) {
	for verb := range newCommand().commands() {
		var out, errs strings.Builder
		c := newCommand()
		c.Stdout, c.Stderr = &out, &errs
		if got := c.Run(context.Background(), c.commands(), []string{verb, "-h"}); got != cli.ExitDone || errs.Len() > 0 {
			t.Errorf("%s -h: status %d, %s", verb, got, errs.String())
		}
		for _, want := range []string{"Usage: updater-bundle " + verb, "\n  updater-bundle " + verb, "Exit codes"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s -h does not say %q", verb, want)
			}
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 10239: "10239 B", 10240: "10.0 KiB", 1 << 20: "1.0 MiB", 448 << 20: "448.0 MiB", 20 << 30: "20.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q; want %q", n, got, want)
		}
	}
}
