// SPDX-License-Identifier: Apache-2.0

package proof

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/updaterd/updaterd/bootctl"
	"github.com/updaterd/updaterd/bootctl/uboot"
	"github.com/updaterd/updaterd/updaterd/internal/proof/medium"
)

// What a first block may be, if it is not that of a version.
const (
	cleared = -1
	torn    = -2
)

// holds tells whose first block, and whose other blocks, a slot has; a first
// block may be cleared or torn, and other blocks are torn if they are those of
// no version.
func holds(s *medium.State, class string, slot bootctl.Slot) (first, rest int) {
	pages := s.Pages(slotDisk(class, slot))
	first, rest = torn, torn
	if pages[0].Data == [page]byte{} {
		first = cleared
	}
	for version := range versions {
		image := theProduct().images[version][class]
		if bytes.Equal(pages[0].Data[:], image[:page]) {
			first = version
		}
		if same(pages[1:], image[page:]) {
			rest = version
		}
	}
	return first, rest
}

func same(pages []*medium.Page, image []byte) bool {
	for i := 0; len(image) > 0; i++ {
		n := min(page, len(image))
		if !bytes.Equal(pages[i].Data[:n], image[:n]) {
			return false
		}
		image = image[n:]
	}
	return true
}

// system is the version that a slot holds, in all classes.
func system(s *medium.State, slot bootctl.Slot) (version int, whole bool) {
	for i, class := range classes {
		first, rest := holds(s, class.name, slot)
		if first < 0 || first != rest || i > 0 && first != version {
			return torn, false
		}
		version = first
	}
	return version, true
}

// A generation is what one copy of the environment says.
type generation struct {
	copy    int
	primary bootctl.Slot
	trial   bool
	bad     []string
	// spent are the slots whose starts are used up, in scheme bootorder: they
	// are not started either, until the daemon fills them up again.
	spent []string
}

func (g generation) String() string {
	return fmt.Sprintf("copy %d: primary %s, trial %v, bad %v, spent %v", g.copy+1, g.primary, g.trial, g.bad, g.spent)
}

// generations are what the intact copies say, the one in force first.
func (b board) generations(s *medium.State) []generation {
	env := s.Disk(envDisk)
	copies := []uboot.Copy{uboot.DecodeCopy(env[:b.envSize], true), uboot.DecodeCopy(env[b.envSize:], true)}
	var list []generation
	first := uboot.Counter.Select(copies[0], copies[1])
	for _, i := range []int{first, 1 - first} {
		if i < 0 || i > 1 || !copies[i].Valid {
			continue
		}
		if e, err := uboot.Parse(copies[i].Data); err == nil {
			list = append(list, b.generation(i, e))
		}
	}
	return list
}

func (b board) generation(i int, e *uboot.Env) generation {
	g := generation{copy: i, trial: e.Get("upgrade_available") == "1"}
	if !b.order {
		g.primary, g.bad = bootctl.Slot(e.Get("boot_slot")), strings.Fields(e.Get("boot_bad"))
		return g
	}
	order := strings.Fields(strings.ToLower(e.Get("BOOT_ORDER")))
	g.primary = bootctl.Slot(order[0])
	for _, slot := range []string{"a", "b"} {
		if !slices.Contains(order, slot) {
			g.bad = append(g.bad, slot)
		} else if e.Get("BOOT_"+strings.ToUpper(slot)+"_LEFT") == "0" {
			g.spent = append(g.spent, slot)
		}
	}
	return g
}

// Versions 0 and 1 were confirmed at the factory.
func (d *device) sure(version int) bool { return version == 0 || version == 1 || d.judged[version] }

// check asserts the invariants on what is on the media.
func (d *device) check(s *medium.State) {
	g := d.generations(s)
	if len(g) == 0 {
		d.fault("8: no copy of the environment is intact")
		return
	}
	for _, g := range g { // 8: each copy alone must do
		d.checkCopy(s, g)
	}
	for _, slot := range []bootctl.Slot{"a", "b"} {
		for _, class := range classes {
			if first, rest := holds(s, class.name, slot); first != cleared && rest == torn {
				d.fault("2: slot %s.%s is half written and has a first block", class.name, slot)
			} else if first >= 0 && first != rest {
				d.fault("2: slot %s.%s has the first block of version %d and the rest of %d", class.name, slot, first, rest)
			}
		}
	}
	if form, ok := s.File(formFile); ok { // 9
		var version int
		if _, err := fmt.Sscan(strings.TrimPrefix(string(form), "half "), &version); err != nil || !d.judged[version] {
			d.fault("9: the data have the form %q, and that version was never judged good", form)
		}
		for i, g := range g {
			if i == 0 || !d.lossy {
				d.checkForm(s, g, version)
			}
		}
	}
	for _, dir := range []string{dataDir, second} { // 7
		if v := int(d.floorIn(s, dir) / 10); v > 1 && !d.judged[v] {
			d.fault("7: the floor is %d, and version %d was never judged good", 10*v, v)
		}
	}
}

// checkForm: data are migrated to a version only once each copy of the environment
// leads to it, or to a later one, for good.
func (d *device) checkForm(s *medium.State, g generation, version int) {
	confirmed := g.primary
	if g.trial {
		confirmed = confirmed.Other()
	}
	if v, _ := system(s, confirmed); v < version {
		d.fault("9: %v: the data have the form of version %d, and slot %s with version %d is the confirmed one", g, version, confirmed, v)
	}
}

// floorIn is the version floor that a place keeps; 0 if it keeps none, or a
// damaged one, which no power cut makes.
func (d *device) floorIn(s *medium.State, dir string) uint64 {
	b, ok := s.File(dir + "/floors.json")
	var frame struct {
		Sum  string          `json:"sha256"`
		Body json.RawMessage `json:"body"`
	}
	if !ok || json.Unmarshal(b, &frame) != nil || frame.Sum != fmt.Sprintf("%x", sha256.Sum256(frame.Body)) {
		return 0
	}
	var floors struct {
		Sequence uint64 `json:"sequence"`
	}
	if err := json.Unmarshal(frame.Body, &floors); err != nil {
		d.fault("7: floors.json: %v", err)
	}
	return floors.Sequence
}

func (d *device) checkCopy(s *medium.State, g generation) {
	some := false
	for _, slot := range []bootctl.Slot{"a", "b"} {
		version, whole := system(s, slot)
		bad := slices.Contains(g.bad, string(slot))
		some = some || whole && d.sure(version) && !bad
		if !whole && !bad {
			d.fault("2: %v: slot %s is not complete, and not marked bad", g, slot)
		}
		if g.primary != slot {
			continue
		}
		switch {
		case !whole:
			d.fault("3: %v: the primary slot is not complete", g)
		case bad:
			d.fault("1: %v: the primary slot is bad", g)
		case !g.trial && !d.sure(version):
			d.fault("4: %v: version %d is confirmed, and was never judged good", g, version)
		}
	}
	if !some {
		d.fault("1: %v: no confirmed slot can be started", g)
	}
	// U-Boot with this copy alone.
	alone := s.Clone()
	alone.Patch(envDisk, d.envSize*int64(1-g.copy), bytes.Repeat([]byte{0xff}, int(d.envSize)))
	scratch := medium.New(alone)
	start, err := d.uboot(scratch).Boot(func(slot bootctl.Slot) bool { return bootable(alone, slot) })
	if err != nil || start.Defaults {
		d.fault("1: %v: U-Boot starts nothing: %v", g, err)
	} else if _, whole := system(alone, start.Slot); !whole {
		d.fault("2: %v: U-Boot starts slot %s, which is not complete", g, start.Slot)
	}
}

// plain is the state with what nobody can read made the same: a copy of the
// environment whose checksum does not fit.
func (b board) plain(s *medium.State) *medium.State {
	env := s.Disk(envDisk)
	for i := range int64(2) {
		if image := env[i*b.envSize : (i+1)*b.envSize]; !uboot.DecodeCopy(image, true).Valid {
			s = s.Clone()
			s.Patch(envDisk, i*b.envSize, bytes.Repeat([]byte{0xff}, int(b.envSize)))
		}
	}
	return s
}

func key(s *medium.State, judged []int) string { return fmt.Sprint(s.Sum(), judged) }
