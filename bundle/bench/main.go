// SPDX-License-Identifier: Apache-2.0

// Bench compares the bundles of this project with what other tools make of the
// same images: bytes to download, time and memory to build and to apply, and
// installing. "make bench" runs it; docs/benchmark.md tells what it does.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A bench is one run.
type bench struct {
	cache, bin string
	effort     effort
	tools      []tool
	store      store
	log        io.Writer
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	cache := flags.String("cache", "", "`directory` of images and results")
	bin := flags.String("bin", "bin", "`directory` of this project's programs")
	out := flags.String("out", "", "`directory` for benchmark.json, benchmark.svg and table.md")
	docs := flags.String("docs", "", "also bring benchmark.svg and the table of benchmark.md in this `directory` up to date")
	mode := flags.String("mode", "", "`how`: quick (fewer tools), fresh (measure again what is kept), or all (also what takes hours)")
	only := flags.String("pairs", "", "`names` of the pairs to measure, with commas (default all)")
	onlyTools := flags.String("tools", "", "`names` of the tools to run, with commas (default all)")
	install := flags.Bool("install", true, "measure installing as well")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *cache == "" || *out == "" || flags.NArg() > 0 {
		return fmt.Errorf("want -cache and -out, and no arguments; see -h")
	}
	b := &bench{effort: regular, log: stderr}
	var err error
	if b.cache, err = filepath.Abs(*cache); err != nil {
		return err
	}
	if b.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	b.store = store{dir: filepath.Join(b.cache, "results"), run: time.Now().UTC().Format("2006-01-02 15:04:05")}
	switch *mode {
	case "":
	case "quick":
		b.effort = quick
	case "fresh":
		b.store.fresh = true
	case "all":
		b.effort = all
	default:
		return fmt.Errorf("mode %q: want quick, fresh or all", *mode)
	}
	architecture, err := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if err != nil {
		return fmt.Errorf("ask dpkg for the architecture: %w", err)
	}
	arch := strings.TrimSpace(string(architecture))
	list, err := choose(pairs(arch), func(p pair) string { return p.Name }, *only)
	if err != nil {
		return fmt.Errorf("-pairs: %w", err)
	}
	if b.tools, err = choose(tools(), func(t tool) string { return t.name }, *onlyTools); err != nil {
		return fmt.Errorf("-tools: %w", err)
	}
	r := &report{Run: b.store.run, Machine: machine(arch)}
	if err := b.pairs(ctx, r, list); err != nil {
		return err
	}
	if *install {
		if err := b.installs(ctx, r, list[0]); err != nil {
			return err
		}
	}
	fmt.Fprint(stdout, r.text())
	if err := write(*out, r); err != nil || *docs == "" {
		return err
	}
	return document(*docs, r)
}

// choose takes from a list what names has, in the list's order; all of it, if there are no names.
func choose[T any](list []T, name func(T) string, names string) ([]T, error) {
	if names == "" {
		return list, nil
	}
	want := strings.Split(names, ",")
	var chosen []T
	for _, one := range list {
		if i := slices.Index(want, name(one)); i >= 0 {
			want = slices.Delete(want, i, i+1)
			chosen = append(chosen, one)
		}
	}
	if len(want) > 0 {
		return nil, fmt.Errorf("there is no %s", strings.Join(want, ", "))
	}
	return chosen, nil
}

// pairs measures every tool on every pair, one after the other.
func (b *bench) pairs(ctx context.Context, r *report, list []pair) error {
	build := &builder{cache: b.cache, log: b.log}
	for _, p := range list {
		files, err := build.pair(ctx, p)
		if err != nil {
			return err
		}
		s := summary{Name: p.Name, Title: p.Title, Upgraded: files.upgraded}
		if s.Size, err = fileSize(files.new); err != nil {
			return err
		}
		for _, t := range b.tools {
			results, err := b.measure(ctx, p, files, t)
			if err != nil {
				return fmt.Errorf("pair %s, %s: %w", p.Name, t.name, err)
			}
			s.Results = append(s.Results, results...)
		}
		r.Pairs = append(r.Pairs, s)
	}
	return nil
}

// measure measures a tool on a pair, unless a result of this version of it is
// kept. Where the tool takes more effort than wanted, what is kept is all there is.
func (b *bench) measure(ctx context.Context, p pair, files images, t tool) ([]result, error) {
	version, err := b.version(ctx, t)
	if err != nil {
		return nil, err
	}
	id := strings.Join([]string{p.Name, t.name, key(filepath.Base(filepath.Dir(files.old)), filepath.Base(filepath.Dir(files.new)), version)}, "-")
	id = strings.NewReplacer(" ", "_", ",", "").Replace(id)
	if t.effort > b.effort {
		results, _, err := kept[[]result](b.store, id)
		return results, err
	}
	return once(b.store, id, func() ([]result, error) {
		fmt.Fprintf(b.log, "%s: %s\n", p.Name, t.name)
		var results []result
		err := b.within(files, func(j job) (err error) {
			results, err = t.measure(ctx, j)
			return err
		})
		for i := range results {
			results[i].Pair, results[i].Tool, results[i].Version, results[i].Run = p.Name, t.name, version, b.store.run
		}
		return results, err
	})
}

// within calls f with directories that are removed afterwards.
func (b *bench) within(files images, f func(job) error) error {
	dir, err := os.MkdirTemp(b.cache, "work-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	memory := "/dev/shm"
	if info, err := os.Stat(memory); err != nil || !info.IsDir() {
		memory = b.cache
	}
	ram, err := os.MkdirTemp(memory, "bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(ram)
	return f(job{old: files.old, new: files.new, dir: dir, ram: ram, bin: b.bin})
}

// installs measures installing one pair, all ways together: only times of one run compare.
func (b *bench) installs(ctx context.Context, r *report, p pair) error {
	build := &builder{cache: b.cache, log: b.log}
	files, err := build.pair(ctx, p)
	if err != nil {
		return err
	}
	parts := []any{filepath.Base(filepath.Dir(files.old)), filepath.Base(filepath.Dir(files.new))}
	for _, program := range []string{"installbench", "updater-bundle"} {
		digest, err := digestOfFile(filepath.Join(b.bin, program))
		if err != nil {
			return err
		}
		parts = append(parts, digest)
	}
	id := p.Name + "-install-" + key(parts...)
	r.Install, err = once(b.store, id, func() (table installTable, err error) {
		fmt.Fprintf(b.log, "%s: installing\n", p.Name)
		err = b.within(files, func(j job) error {
			table, err = installs(ctx, j)
			return err
		})
		table.Run = b.store.run
		return table, err
	})
	r.Install.Pair = p.Title
	return err
}

// version is a package's version, or a digest of our own program.
func (b *bench) version(ctx context.Context, t tool) (string, error) {
	if t.pkg == "" {
		return digestOfFile(filepath.Join(b.bin, "updater-bundle"))
	}
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", t.pkg).Output()
	if err != nil {
		return "", fmt.Errorf("ask dpkg for %s: %w; \".ci/setup bench\" installs it", t.pkg, err)
	}
	return string(out), nil
}

func digestOfFile(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("find a program of this project: %w; \"make bench-peers\" builds it", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// machine describes the machine in general words.
func machine(architecture string) string {
	memory := ""
	if data, err := os.ReadFile("/proc/meminfo"); err == nil {
		var kib int64
		if _, err := fmt.Sscanf(string(data), "MemTotal: %d kB", &kib); err == nil {
			memory = fmt.Sprintf(" and %d GB of memory", (kib<<10+500_000_000)/1_000_000_000)
		}
	}
	return fmt.Sprintf("a machine of architecture %s with %d cores%s", architecture, runtime.NumCPU(), memory)
}

// write writes what stays of a run.
func write(dir string, r *report) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"benchmark.json": string(data) + "\n", "benchmark.svg": picture(r), "table.md": r.markdown(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// The table of benchmark.md lies between these lines; the rest is written by people.
const beginTable, endTable = "<!-- table: make bench-docs writes it -->\n", "<!-- end of table -->\n"

// document puts the picture and the table into the documentation.
func document(dir string, r *report) error {
	path := filepath.Join(dir, "benchmark.md")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	updated, err := replaceTable(string(text), r.markdown())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.WriteFile(path, []byte(updated), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "benchmark.svg"), []byte(picture(r)), 0o644)
}

func replaceTable(text, table string) (string, error) {
	before, rest, found := strings.Cut(text, beginTable)
	_, after, ended := strings.Cut(rest, endTable)
	if !found || !ended {
		return "", fmt.Errorf("the lines %q and %q are missing", strings.TrimSpace(beginTable), strings.TrimSpace(endTable))
	}
	return before + beginTable + table + endTable + after, nil
}
