// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// A variant is one way to call updater-bundle create; each recipe it makes is a row.
type variant struct {
	name string
	args []string // in addition to the images
	rows map[string]row
}

// A row names what a recipe is compared with.
type row struct {
	kind  kind
	label string
}

// variants are the rows of this project. A further option is one more variant,
// a further recipe one more row.
var variants = []variant{
	{"updaterd", nil, map[string]row{
		"full":  {full, "updaterd, full recipe"},
		"delta": {known, "updaterd, delta"},
	}},
}

func ours() []tool {
	var list []tool
	for _, v := range variants {
		list = append(list, tool{v.name, "", quick, v.measure})
	}
	return list
}

// bundleFile is the bundle that create makes.
const bundleFile = "out.upb"

// measure creates a bundle with a delta and applies it. One call makes all
// recipes, so all rows tell the same time and memory for it.
func (v variant) measure(ctx context.Context, j job) ([]result, error) {
	u, err := v.create(ctx, j)
	if err != nil {
		return nil, err
	}
	out, _, err := measure(ctx, j.dir, filepath.Join(j.bin, "updater-bundle"), "info", "--json", bundleFile)
	if err != nil {
		return nil, err
	}
	downloads, err := downloads(out)
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
		if row.kind == known {
			r.Apply, err = applied(ctx, j, func(out string) []string {
				return []string{filepath.Join(j.bin, "updater-bundle"), "apply", "--keyring", "keys", "--image", "rootfs",
					"--source", j.old, "-o", out, bundleFile}
			})
			if err != nil {
				return nil, err
			}
		}
		results = append(results, r)
	}
	return results, nil
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
		"--image", "rootfs=" + j.new, "--build-id", "rootfs=new", "--delta-from", "rootfs=" + j.old + ",build-id=old",
		"--key", "bench.key", "-o", bundleFile}
	_, u, err := measure(ctx, j.dir, append(argv, v.args...)...)
	return u, err
}

// downloads reads what info --json prints: the bytes of each recipe, the envelope included.
func downloads(info []byte) (map[string]int64, error) {
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
		return nil, fmt.Errorf("read updater-bundle info: %w", err)
	}
	if len(about.Images) != 1 {
		return nil, errors.New("read updater-bundle info: want one image")
	}
	found := make(map[string]int64)
	for _, r := range about.Images[0].Recipes {
		found[r.Kind] = about.EnvelopeSize + r.Download
	}
	return found, nil
}
