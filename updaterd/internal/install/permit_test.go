// SPDX-License-Identifier: Apache-2.0

package install

import (
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/bundle/permit"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

func TestPermits(t *testing.T) {
	issued := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	make := func(by sign.Signer, change func(p *permit.Permit)) []byte {
		p := &permit.Permit{Format: permit.Format, ID: "00112233445566778899aabbccddeeff", Compatible: []string{"board-1"},
			Devices: []string{"device-7"}, Groups: []string{"lab"}, First: 2, Last: 4, Issued: issued, Expires: issued.AddDate(0, 0, 7)}
		if change != nil {
			change(p)
		}
		return must(permit.Seal(p, by))
	}
	good := make(newKey().signer, nil)
	for name, tc := range map[string]struct {
		change   func(o *Options)
		permit   []byte
		sequence uint64
		now      time.Time // of the clock, or the time floor if that is later
		want     string    // name of the error
		because  string
	}{
		"good":                       {permit: good},
		"good, by its group":         {permit: good, change: func(o *Options) { o.DeviceID = "" }},
		"signed by unknown key":      {permit: make(strangeKey().signer, nil), want: update.NameUntrustedSignature},
		"expired permit":             {permit: good, now: issued.AddDate(0, 0, 8), want: update.NameNotPermitted, because: "it ended at 2026-02-07"},
		"permit for another device":  {permit: good, change: func(o *Options) { o.DeviceID, o.Groups = "device-8", nil }, want: update.NameNotPermitted, because: "for other devices"},
		"permit for another range":   {permit: good, sequence: 5, want: update.NameNotPermitted, because: "sequences 2 to 4, the release has 5"},
		"permit for another product": {permit: make(newKey().signer, func(p *permit.Permit) { p.Compatible = []string{"board-2"} }), want: update.NameNotPermitted, because: "it is for board-2"},
		"signer's key has ended": {permit: good, change: func(o *Options) {
			o.Policy = ruled("", "not_after = 2026-02-01T00:00:00Z")
			o.TimeFloor = func() time.Time { return issued.AddDate(0, 0, 3) }
		}, want: update.NameUntrustedSignature, because: "was valid until 2026-02-01"},
		"no rule for permits": {permit: good, change: func(o *Options) { o.Policy = ruled("classes = [\"rootfs\"]", "") }, want: update.NameUntrustedSignature, because: "no rule"},
		"no permit at all":    {permit: []byte("go back"), want: update.NameNotPermitted},
		"a bundle's envelope": {permit: must(sign.Seal("application/vnd.updaterd.manifest.v1+json", []byte("{}"), newKey().signer)), want: update.NameUntrustedSignature, because: "wrong payload type"},
	} {
		t.Run(name, func(t *testing.T) {
			v1, _ := systems()
			r := newRig(t, nil, v1, nil)
			r.o.DeviceID, r.o.Groups = "device-7", []string{"lab"}
			if tc.change != nil {
				tc.change(&r.o)
			}
			r.restart()
			if tc.sequence == 0 {
				tc.sequence = 2
			}
			if tc.now.IsZero() {
				tc.now = issued
			}
			p, err := r.engine.Permit(tc.permit, tc.sequence, tc.now)
			if tc.want != "" {
				wantName(t, err, tc.want)
				if err != nil && !strings.Contains(err.Error(), tc.because) {
					t.Errorf("%v does not say %q", err, tc.because)
				}
				return
			}
			if err != nil || p.First != 2 || p.ID != "00112233445566778899aabbccddeeff" {
				t.Errorf("%+v, %v", p, err)
			}
		})
	}
	if update.MaxPermit != permit.MaxEnvelope {
		t.Errorf("a permit has %d bytes at most, and %d are taken", permit.MaxEnvelope, update.MaxPermit)
	}
}
