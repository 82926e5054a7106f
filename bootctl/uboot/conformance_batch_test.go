// SPDX-License-Identifier: Apache-2.0

package uboot_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/updaterd/updaterd/bootctl/uboot"
)

// batch is many environments, each in a file of its own, so that one shell can
// run a tool on all of them: that is several times as fast as to start each run
// from here.
type batch struct {
	dir    string
	copies int
	want   []map[string]string
}

const batchSize = 0x2000 // of a copy

func (b *batch) path(kind string, i int) string {
	return filepath.Join(b.dir, fmt.Sprintf("%s%d", kind, i))
}

func (b *batch) config(i int) uboot.Config {
	config := uboot.Config{{Path: b.path("env", i), Size: batchSize}, {Path: b.path("env", i), Offset: batchSize, Size: batchSize}}
	return config[:b.copies]
}

func (b *batch) write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// newBatch makes n environments. Each has some environment before, with any two
// flags that follow one another or are equal, or with one damaged copy.
func newBatch(t *testing.T, r *rand.Rand, n, copies int) *batch {
	t.Helper()
	b := &batch{dir: t.TempDir(), copies: copies}
	for i := range n {
		var image []byte
		flag := r.IntN(256)
		for c := range copies {
			env := &uboot.Env{}
			if err := env.Set("before", fmt.Sprint(c)); err != nil {
				t.Fatal(err)
			}
			one, err := uboot.EncodeCopy(env, byte(flag+c*(r.IntN(3)-1)), batchSize, copies == 2)
			if err != nil {
				t.Fatal(err)
			}
			image = append(image, one...)
		}
		if copies == 2 && i%5 == 0 {
			image[r.IntN(2)*batchSize+9]++
		}
		b.write(t, b.path("env", i), image)
		b.write(t, b.path("config", i), []byte(b.config(i).String()))
		b.want = append(b.want, randomVars(r))
	}
	return b
}

// control opens environment i.
func (b *batch) control(t *testing.T, i int) *uboot.Control {
	t.Helper()
	store, err := uboot.OpenStore(b.config(i), filepath.Join(b.dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	return uboot.New(store)
}

// each runs a command of the shell for every environment, with its number in $i.
func (b *batch) each(t *testing.T, command string) {
	t.Helper()
	run(t, "", "sh", "-ec", fmt.Sprintf("cd %s; i=0; while [ $i -lt %d ]; do %s; i=$((i+1)); done", b.dir, len(b.want), command))
}

// printed checks what fw_printenv says of every environment.
func (b *batch) printed(t *testing.T) {
	t.Helper()
	b.each(t, "fw_printenv -c config$i >out$i")
	for i, want := range b.want {
		text, err := os.ReadFile(b.path("out", i))
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			got[name] = value
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("environment %d, read by fw_printenv: %s", i, diff)
		}
	}
}

// seen checks what we read of every environment.
func (b *batch) seen(t *testing.T) {
	t.Helper()
	for i, want := range b.want {
		env, err := b.control(t, i).Env()
		if err != nil {
			t.Fatalf("environment %d: %v", i, err)
		}
		if diff := cmp.Diff(want, env.Vars()); diff != "" {
			t.Fatalf("environment %d, read by us: %s", i, diff)
		}
	}
}

// Thousands of random environments, written by one and read by the other.
func TestConformanceBatch(t *testing.T) {
	writers := map[string]func(t *testing.T, b *batch){
		"we write": func(t *testing.T, b *batch) {
			for i, want := range b.want {
				replace(t, b.control(t, i), false, want)
			}
			b.printed(t)
		},
		"fw_setenv writes": func(t *testing.T, b *batch) {
			for i, want := range b.want {
				b.write(t, b.path("script", i), []byte("before=\n"+script(want)))
			}
			b.each(t, "fw_setenv -c config$i -s script$i")
			b.seen(t)
		},
		"mkenvimage writes": func(t *testing.T, b *batch) {
			for i, want := range b.want {
				b.write(t, b.path("script", i), []byte(script(want)))
			}
			option, copies := "", "cat one"
			if b.copies == 2 {
				option, copies = "-r", "cat one one"
			}
			b.each(t, fmt.Sprintf("mkenvimage %s -s %d -o one script$i; %s >env$i", option, batchSize, copies))
			b.seen(t)
		},
	}
	for _, tc := range []struct {
		name      string
		copies, n int
	}{{"redundant", 2, 800}, {"single", 1, 400}} {
		for who, check := range writers {
			t.Run(tc.name+", "+who, func(t *testing.T) {
				t.Parallel() // it mostly waits for the disk
				check(t, newBatch(t, rand.New(rand.NewPCG(2, uint64(tc.copies))), tc.n, tc.copies))
			})
		}
	}
}
