// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/updaterd/updaterd/bootctl"
)

// A Journal is the durable record of why: what is in hand and how the last job
// ended. The boot environment, not the journal, says what boots.
type Journal struct {
	State State `json:"state"`
	// LastID is the number of the latest job.
	LastID uint64 `json:"last_id"`
	// Job is what is in hand; it is nil exactly in StateIdle.
	Job  *Job    `json:"job,omitempty"`
	Last *Result `json:"last,omitempty"`
}

// A Job is one update, from Install over the reboot to its result.
type Job struct {
	ID       uint64 `json:"id"`
	Ref      string `json:"ref"`
	Digest   string `json:"digest"`
	Version  string `json:"version"`
	Sequence uint64 `json:"sequence"`
	Floor    uint64 `json:"floor"`
	// TimeFloor is the release's signed time, as far as that is to be believed.
	TimeFloor time.Time      `json:"time_floor"`
	Mode      string         `json:"mode"`
	Images    []ReleaseImage `json:"images,omitempty"`
	Options   InstallOptions `json:"options"`
	// Permit is the id of the permit that lets the device go back, if one is needed.
	Permit string       `json:"permit,omitempty"`
	Source bootctl.Slot `json:"source"`
	Target bootctl.Slot `json:"target"`
	// SourceConfirmed tells that Source was a confirmed slot when the job began:
	// only then is it a slot to roll back to.
	SourceConfirmed bool `json:"source_confirmed"`
	// Adopted tells that the trial was found in the boot environment, without a
	// journal that knew of it.
	Adopted bool `json:"adopted,omitempty"`
	// Attempts counts the starts of the work since Mark, the highest tenth of
	// it that was reached, last rose. It is what bounds a job that never ends.
	Attempts int  `json:"attempts"`
	Mark     int  `json:"mark"`
	Paused   bool `json:"paused,omitempty"`
	// BootID is the run of the kernel in which the download was last resumed,
	// then the one in which the target was read back, then the one in which it
	// was made primary, then the one in which its checks began last, and then the
	// one in which the roll-back did.
	BootID string `json:"boot_id,omitempty"`
	// Tries is the number of counted starts that the trial began with, if known.
	Tries      int  `json:"tries,omitempty"`
	Cancelling bool `json:"cancelling,omitempty"`
	// Override tells that a person confirmed the trial.
	Override bool `json:"override,omitempty"`
	// Rollbacks counts the runs of the kernel in which a roll-back was begun.
	Rollbacks int          `json:"rollbacks,omitempty"`
	Reason    string       `json:"reason,omitempty"`
	Stats     InstallStats `json:"stats"`
}

// clone returns a journal whose job may be changed without changing j's.
func (j Journal) clone() Journal {
	if j.Job != nil {
		job := *j.Job
		j.Job = &job
	}
	return j
}

// schema is the number of the records' format, for all files of the data
// directory. During a trial the new system writes what the old one reads after
// a fall-back, so this rises only one release after its readers did.
const schema = 1

// Limits of what is read back from the data directory.
const (
	maxRecord = 256 << 10 // bytes of any record file
	maxImages = 64
)

var (
	errCorrupt = errors.New("record is damaged")
	errNewer   = errors.New("record was written by a newer version")
)

// A record is the frame of every JSON file here. Sum is over the bytes of Body.
type record struct {
	Schema int             `json:"schema"`
	Sum    string          `json:"sha256"`
	Body   json.RawMessage `json:"body"`
}

// encodeRecord frames body.
func encodeRecord(body any) ([]byte, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	out, err := json.Marshal(record{Schema: schema, Sum: sumOf(b), Body: b})
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if out = append(out, '\n'); len(out) > maxRecord {
		return nil, fmt.Errorf("encode record: %d bytes are more than the limit of %d", len(out), maxRecord)
	}
	return out, nil
}

// decodeRecord fills body, or fails with errNewer or errCorrupt. Only what
// encodeRecord would write itself is accepted: no unknown, doubled or
// differently spelt fields, nothing after the end.
func decodeRecord(data []byte, body any) error {
	if len(data) > maxRecord {
		return fmt.Errorf("%w: %d bytes are more than the limit of %d", errCorrupt, len(data), maxRecord)
	}
	// The schema alone is looked at first: a newer frame may have other fields.
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return fmt.Errorf("%w: %v", errCorrupt, err)
	}
	if head.Schema > schema {
		return fmt.Errorf("%w: schema %d, this version reads %d", errNewer, head.Schema, schema)
	}
	var r record
	if err := strict(data, &r); err != nil {
		return err
	}
	if r.Schema != schema {
		return fmt.Errorf("%w: schema %d", errCorrupt, r.Schema)
	}
	if sumOf(r.Body) != r.Sum {
		return fmt.Errorf("%w: checksum does not match", errCorrupt)
	}
	if err := strict(r.Body, body); err != nil {
		return err
	}
	if again, err := encodeRecord(body); err != nil || !bytes.Equal(again, data) {
		return fmt.Errorf("%w: not in canonical form", errCorrupt)
	}
	return nil
}

func strict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("%w: %v", errCorrupt, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: something follows the end", errCorrupt)
	}
	return nil
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// decodeJournal reads a journal that encodeRecord wrote. An unknown state is
// an error, never a default.
func decodeJournal(data []byte) (Journal, error) {
	var j Journal
	if err := decodeRecord(data, &j); err != nil {
		return Journal{}, err
	}
	if err := j.validate(); err != nil {
		return Journal{}, fmt.Errorf("%w: %v", errCorrupt, err)
	}
	return j, nil
}

func (j Journal) validate() error {
	if !slices.Contains(States(), j.State) {
		return fmt.Errorf("unknown state %q", j.State)
	}
	if (j.State == StateIdle) != (j.Job == nil) {
		return fmt.Errorf("state %s does not go with the job", j.State)
	}
	if j.Job == nil {
		return nil
	}
	switch job := j.Job; {
	case !job.Source.Valid() || job.Target != job.Source.Other():
		return fmt.Errorf("source slot %q and target slot %q", job.Source, job.Target)
	case job.ID > j.LastID:
		return fmt.Errorf("job %d is newer than the latest, %d", job.ID, j.LastID)
	case job.Attempts < 0 || job.Mark < 0 || job.Tries < 0 || job.Rollbacks < 0:
		return errors.New("negative count")
	case len(job.Images) > maxImages:
		return fmt.Errorf("%d images are more than the limit of %d", len(job.Images), maxImages)
	}
	return nil
}
