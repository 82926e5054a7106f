// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func number(ts *testscript.TestScript, s string) int {
	n, err := strconv.Atoi(s)
	ts.Check(err)
	return n
}

// prose is n bytes that compress, others for each seed.
func prose(n, seed int) []byte {
	r := rand.New(rand.NewPCG(uint64(seed), 1))
	var b bytes.Buffer
	for b.Len() < n {
		fmt.Fprintf(&b, "%x the slot and the trial %x\n", r.Uint32(), r.Uint32()&0xff)
	}
	return b.Bytes()[:n]
}

// fill noise|prose FILE N SEED: FILE becomes N bytes.
func fill(ts *testscript.TestScript, _ bool, args []string) {
	n, seed := number(ts, args[2]), number(ts, args[3])
	b := prose(n, seed)
	if args[0] == "noise" {
		rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	}
	path := ts.MkAbs(args[1])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, b, 0o644))
}

// gzip FILE N SEED TIME: FILE is prose, compressed, with a time in the header.
func gzipFile(ts *testscript.TestScript, _ bool, args []string) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.ModTime = time.Unix(int64(number(ts, args[3])), 0)
	w.Write(prose(number(ts, args[1]), number(ts, args[2])))
	ts.Check(w.Close())
	path := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, b.Bytes(), 0o644))
}

// tree DIR: a small root file system, some 2 MiB.
func tree(ts *testscript.TestScript, _ bool, args []string) {
	for i := range 200 {
		fill(ts, false, []string{"prose", fmt.Sprintf("%s/etc/conf.d/setting-%03d.conf", args[0], i), "700", fmt.Sprint(i)})
	}
	for i := range 10 {
		fill(ts, false, []string{"prose", fmt.Sprintf("%s/usr/lib/lib%d.so", args[0], i), "60000", fmt.Sprint(i)})
	}
	fill(ts, false, []string{"noise", args[0] + "/usr/bin/one", "300000", "1"})
	fill(ts, false, []string{"noise", args[0] + "/usr/bin/two", "400000", "2"})
	fill(ts, false, []string{"prose", args[0] + "/etc/os-release", "10", "1"})
}

// ext4 IMAGE SIZE DIR [OPTION]...: mke2fs makes an image of DIR, always the
// same one unless an option says otherwise.
func ext4(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv("E2FSPROGS_FAKE_TIME", "1700000000")
	image := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(image, nil, 0o644))
	ts.Check(os.Truncate(image, int64(number(ts, args[1]))<<20))
	ts.Check(ts.Exec("mke2fs", slices.Concat([]string{
		"-q", "-F", "-t", "ext4", "-b", "4096", "-U", "11111111-2222-3333-4444-555555555555",
		"-E", "hash_seed=11111111-2222-3333-4444-555555555556", "-d", ts.MkAbs(args[2]),
	}, args[3:], []string{image})...))
}
