// SPDX-License-Identifier: Apache-2.0

//go:build qemu

package scenario

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/updaterd/updaterd/bootctl/durable"
	"github.com/updaterd/updaterd/bootctl/uboot"
	board "github.com/updaterd/updaterd/qemu/uboot"
)

// Where the copies of the environment are on the card.
const (
	envFrom = board.EnvOffset
	envTo   = board.EnvOffset2 + board.EnvSize
)

// counts are what a soak has tried so far.
type counts struct {
	Seed     uint64         `json:"seed"`
	Cuts     int            `json:"cuts"`
	Kinds    map[string]int `json:"kinds"` // where the power was cut
	Found    map[string]int `json:"found"` // what the cut left
	Starts   int            `json:"starts"`
	Updates  int            `json:"updates"`
	NotBegun int            `json:"not_begun"`
}

// loadCounts goes on from a file, unless it has another seed.
func loadCounts(path string, seed uint64) (*counts, error) {
	c := &counts{Kinds: map[string]int{}, Found: map[string]int{}}
	if path != "" {
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, c)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read counts: %w; remove the file to begin anew", err)
		}
	}
	if seed != 0 && seed != c.Seed {
		c = &counts{Seed: seed, Kinds: map[string]int{}, Found: map[string]int{}}
	}
	if c.Seed == 0 {
		c.Seed = uint64(time.Now().UnixNano())
	}
	return c, nil
}

func (c *counts) save(path string) error {
	if path == "" {
		return nil
	}
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(durable.OS{}, path, append(b, '\n'), 0o644)
}

func (c *counts) String() string {
	list := func(m map[string]int) string {
		var parts []string
		for _, name := range slices.Sorted(maps.Keys(m)) {
			parts = append(parts, fmt.Sprintf("%d %s", m[name], name))
		}
		return strings.Join(parts, ", ")
	}
	return fmt.Sprintf("seed %d: %d cuts (%s); the card was found %s; %d updates came to their end, %d had not begun",
		c.Seed, c.Cuts, list(c.Kinds), list(c.Found), c.Updates, c.NotBegun)
}

// copies are the intact copies of the environment on the card, the one in force first.
func (s *soak) copies() []map[string]string {
	s.Helper()
	var both [2]uboot.Copy
	for i, at := range []int64{board.EnvOffset, board.EnvOffset2} {
		both[i] = uboot.DecodeCopy(readCard(s.T, s.dev, at, at+board.EnvSize), true)
	}
	var list []map[string]string
	first := uboot.Counter.Select(both[0], both[1])
	for _, i := range []int{first, 1 - first} {
		if i < 0 || i > 1 || !both[i].Valid {
			continue
		}
		env, err := uboot.Parse(both[i].Data)
		if err != nil {
			s.Fatal(err)
		}
		list = append(list, env.Vars())
	}
	return list
}

// wholeSlot reports whether a slot holds one of the versions.
func (s *soak) wholeSlot(slot string) bool {
	s.Helper()
	from, to := slotRange(s.T, slot)
	card := readCard(s.T, s.dev, from, to)
	return slices.ContainsFunc(s.images, func(path string) bool {
		image, err := os.ReadFile(path)
		if err != nil {
			s.Fatal(err)
		}
		return bytes.HasPrefix(card, image)
	})
}
