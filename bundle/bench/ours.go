// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A variant is one way to call updater-bundle create; each recipe it makes is a row.
type variant struct {
	name   string
	effort effort
	delta  bool     // with one from the old image
	args   []string // in addition to the images
	rows   map[string]row
}

// A row names what a recipe is compared with.
type row struct {
	kind  kind
	label string
}

// variants are the rows of this project. A further option is one more variant,
// a further recipe one more row.
var variants = []variant{
	{"updaterd", quick, true, nil, map[string]row{
		"full":  {full, "updaterd, full recipe"},
		"delta": {known, "updaterd, delta"},
	}},
	{"updaterd-blocks", quick, false, []string{"--blocks"}, map[string]row{
		"blocks": {unknown, "updaterd, blocks recipe"},
	}},
	{"updaterd-zstd", regular, false, []string{"--compressor", "zstd"}, map[string]row{
		"full": {full, "updaterd, full recipe by --compressor zstd"},
	}},
}

func ours() []tool {
	var list []tool
	for _, v := range variants {
		list = append(list, tool{v.name, "", v.effort, v.measure})
	}
	return list
}

// bundleFile is the bundle that create makes.
const bundleFile = "out.upb"

// measure creates a bundle and applies what is made for an old image. One call
// makes all recipes, so all rows tell the same time and memory for it.
func (v variant) measure(ctx context.Context, j job) ([]result, error) {
	u, err := v.create(ctx, j)
	if err != nil {
		return nil, err
	}
	out, _, err := measure(ctx, j.dir, filepath.Join(j.bin, "updater-bundle"), "info", "--json", bundleFile)
	if err != nil {
		return nil, err
	}
	envelope, downloads, err := downloads(out)
	if err != nil {
		return nil, err
	}
	var results []result
	for recipe, row := range v.rows {
		n, made := downloads[recipe]
		if !made {
			return nil, fmt.Errorf("updater-bundle create %v: the bundle has no %s recipe", v.args, recipe)
		}
		r := result{Label: row.label, Kind: row.kind, Ours: true, Bytes: n, usage: u}
		if row.kind != full {
			var said []byte
			if said, r.Apply, err = v.apply(ctx, j); err != nil {
				return nil, err
			}
			if row.kind == unknown {
				// How much of it a device needs shows only when it has looked.
				if r.Bytes, err = downloaded(said); err != nil {
					return nil, err
				}
				r.Bytes += envelope
			}
		}
		results = append(results, r)
	}
	return results, nil
}

// apply makes the new image of the old one and the bundle.
func (v variant) apply(ctx context.Context, j job) (said []byte, u *usage, err error) {
	return applied(ctx, j, func(out string) []string {
		return []string{filepath.Join(j.bin, "updater-bundle"), "apply", "--keyring", "keys", "--image", "rootfs",
			"--source", j.old, "-o", out, bundleFile}
	})
}

func (v variant) create(ctx context.Context, j job) (usage, error) {
	if err := os.Mkdir(j.path("keys"), 0o755); err != nil {
		return usage{}, err
	}
	if err := command(ctx, filepath.Join(j.bin, "updater-sign"), "keygen", "-o", j.path("bench")); err != nil {
		return usage{}, err
	}
	if err := os.Rename(j.path("bench.pub"), j.path("keys/bench.pem")); err != nil {
		return usage{}, err
	}
	argv := []string{filepath.Join(j.bin, "updater-bundle"), "create", "--compatible", "bench", "--version", "2",
		"--image", "rootfs=" + j.new, "--build-id", "rootfs=new", "--key", "bench.key", "-o", bundleFile}
	if v.delta {
		argv = append(argv, "--delta-from", "rootfs="+j.old+",build-id=old")
	}
	_, u, err := measure(ctx, j.dir, append(argv, v.args...)...)
	return u, err
}

// downloads reads what info --json prints: the bytes of the envelope, and of
// each recipe with it.
func downloads(info []byte) (envelope int64, recipes map[string]int64, err error) {
	var about struct {
		EnvelopeSize int64 `json:"envelope_size"`
		Images       []struct {
			Recipes []struct {
				Kind     string
				Download int64
			}
		}
	}
	if err := json.Unmarshal(info, &about); err != nil {
		return 0, nil, fmt.Errorf("read updater-bundle info: %w", err)
	}
	if len(about.Images) != 1 {
		return 0, nil, errors.New("read updater-bundle info: want one image")
	}
	recipes = make(map[string]int64)
	for _, r := range about.Images[0].Recipes {
		recipes[r.Kind] = about.EnvelopeSize + r.Download
	}
	return about.EnvelopeSize, recipes, nil
}

// downloaded reads what apply prints.
func downloaded(said []byte) (int64, error) {
	for line := range strings.Lines(string(said)) {
		if rest, ok := strings.CutPrefix(line, "download: "); ok {
			n, _, _ := strings.Cut(rest, " ")
			return strconv.ParseInt(n, 10, 64)
		}
	}
	return 0, fmt.Errorf("read updater-bundle apply: no download in %.200q", said)
}
