// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"strings"
	"testing"
	"time"
)

// oneOf is a policy of keys, as NAME or NAME=year of its end, one of which must sign.
func (x *team) oneOf(t *testing.T, keys ...string) *Policy {
	t.Helper()
	var signers, names []string
	for _, key := range keys {
		name, end, limited := strings.Cut(key, "=")
		signer := "[signers." + name + "]\nid = \"ID(" + name + ")\"\n"
		if limited {
			signer += "not_after = " + end + "-01-01T00:00:00Z\n"
		}
		signers, names = append(signers, signer), append(names, `"`+name+`"`)
	}
	return x.policy(t, strings.Join(signers, "")+"[[rule]]\nsigners = ["+strings.Join(names, ", ")+"]\nthreshold = 1\n")
}

// Who may state any time proves none, unless all may.
func TestTimelyRelease(t *testing.T) {
	x := newTeam(t, "alice", "bob")
	for name, tc := range map[string]struct {
		keys    []string
		by      []string
		created time.Time
		timely  bool
	}{
		"by a key with an end":           {[]string{"alice=2030", "bob"}, []string{"alice"}, year(2026), true},
		"by a key without an end":        {[]string{"alice=2030", "bob"}, []string{"bob"}, year(2026), false},
		"by both":                        {[]string{"alice=2030", "bob"}, []string{"alice", "bob"}, year(2026), true},
		"by both, beyond the end of one": {[]string{"alice=2030", "bob"}, []string{"alice", "bob"}, year(2099), false},
		"no key has an end":              {[]string{"alice", "bob"}, []string{"bob"}, year(2099), true},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := x.oneOf(t, tc.keys...).Verify(x.seal(t, tc.by...), testType, time.Time{}, claim(Claims{Created: tc.created}))
			if err != nil || v.Timely != tc.timely {
				t.Errorf("%+v, %v; want timely %v", v, err, tc.timely)
			}
		})
	}
	v, err := x.keyring.Policy(1).Verify(x.seal(t, "bob"), testType, year(2099), claim(Claims{Created: year(2026)}))
	if err != nil || !v.Timely {
		t.Errorf("without a policy: %+v, %v", v, err)
	}
}

// A time beyond all ends, such as that of an image that was built in 2099, ends
// all keys but the last one.
func TestTheLastKeyIsNotEndedByTheTimeFloor(t *testing.T) {
	x := newTeam(t, "alice", "bob", "carol")
	for name, tc := range map[string]struct {
		keys []string
		by   string
		want string
	}{
		"the last":                     {[]string{"alice=2028", "bob=2030"}, "bob", ""},
		"another":                      {[]string{"alice=2028", "bob=2030"}, "alice", "was valid until 2028-01-01T00:00:00Z, and it is at least 2030"},
		"the last beside one for good": {[]string{"alice=2028", "bob=2030", "carol"}, "bob", "was valid until 2030-01-01T00:00:00Z, and it is at least 2099"},
		"the one for good":             {[]string{"alice=2028", "bob=2030", "carol"}, "carol", ""},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := x.oneOf(t, tc.keys...).Verify(x.seal(t, tc.by), testType, year(2099), claim(Claims{Created: year(2026)}))
			checkVerdict(t, v, err, tc.want)
		})
	}
	revoked := x.policy(t, `revoked = ["ID(carol)"]
[signers.bob]
id = "ID(bob)"
not_after = 2030-01-01T00:00:00Z
[signers.carol]
id = "ID(carol)"
[[rule]]
signers = ["bob", "carol"]
threshold = 1
`)
	v, err := revoked.Verify(x.seal(t, "bob"), testType, year(2099), claim(Claims{Created: year(2026)}))
	checkVerdict(t, v, err, "")
}

// One release dated 2099, signed by a key without an end, does not end those that
// end in 2030: nobody believes its time.
func TestOneReleaseOf2099(t *testing.T) {
	x := newTeam(t, "alice", "bob")
	p := x.oneOf(t, "alice=2030", "bob")
	var floor time.Time
	confirm := func(by string, created time.Time) error {
		v, err := p.Verify(x.seal(t, by), testType, floor, claim(Claims{Created: created}))
		if err == nil && v.Timely && created.After(floor) {
			floor = created
		}
		return err
	}
	for _, r := range []struct {
		by      string
		created time.Time
	}{{"alice", year(2026)}, {"bob", year(2099)}, {"alice", year(2027)}} {
		if err := confirm(r.by, r.created); err != nil {
			t.Fatalf("release of %s, %s: %v", r.by, r.created, err)
		}
	}
	if !floor.Equal(year(2027)) {
		t.Errorf("time floor is %v", floor)
	}
}
