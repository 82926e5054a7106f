// SPDX-License-Identifier: Apache-2.0

package update

import (
	"time"

	"github.com/updaterd/updaterd/bootctl/durable"
)

// Knowledge is what the records of a data directory say.
type Knowledge struct {
	Slots []SlotRecord
	Time  time.Time // the time floor
}

// Known reads records for one who only looks: it changes nothing, and what is
// missing or damaged counts as not known.
func Known(fs durable.FS, dataDir string) (k Knowledge) {
	s, f := slots{}, floors{}
	files := dir{fs, dataDir}
	if b, err := files.read(fileSlots, maxRecord); err == nil && decodeRecord(b, &s) == nil {
		k.Slots = s.Records
	}
	if b, err := files.read(fileFloors, maxRecord); err == nil && decodeRecord(b, &f) == nil {
		k.Time = f.Time
	}
	return k
}
