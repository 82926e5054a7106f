// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Policy says whom to believe for what. The zero value and nil believe nobody.
// It is made by [Keyring.Policy], [LoadPolicy] or [ParsePolicy], and may be used by
// several goroutines.
type Policy struct {
	keyring *Keyring
	rules   []rule
	revoked []string // key ids
	denied  []string // digests of payloads
	logs    []transparencyLog
}

// A rule is met if at least threshold different keys of its signers have signed.
type rule struct {
	number    int      // in the policy file, from 1; 0 if there is none
	classes   []string // that it is about; nil: all
	channels  []string // likewise
	signers   []party
	threshold int
	logs      []string // of which one must have each signature; nil: none needs to
}

// A party is a key that is believed while it is valid, or the holder of a
// certificate that an authority vouches for.
type party struct {
	member
	name                string
	notBefore, notAfter time.Time // of a key; zero: no bound
	subject             string    // of a certificate; "": any
}

// Claims are what a payload says about itself, for a policy to judge.
type Claims struct {
	// Created is the signed time. Without one, no key counts whose validity ends.
	Created time.Time
	Channel string
	// Classes lists what the payload is for. If there is nothing, the rules apply
	// that are not about certain classes.
	Classes []string
}

// Verified is what an envelope holds, and who says so.
type Verified struct {
	// Payload is exactly what was signed.
	Payload []byte
	// KeyIDs names the keys that count: distinct and sorted.
	KeyIDs []string
	// Entries tells where logs of the policy keep the signatures of those keys.
	Entries []LogEntry
	// Timely tells that the time which the payload claims proves something: one of
	// the keys has an end, and so could not have stated any time; or no key has.
	Timely bool
}

// Verify takes the payload out of an envelope, provided that enough keys signed it
// under payloadType, for what it claims to be.
//
// read gets the payload once enough keys of any rule are proven to have signed it,
// and not before; nil means that it claims nothing. Each of its classes must be
// covered by a rule, and each rule that covers one must be met, so a rule that is
// added never weakens another one. Signatures by unknown keys are passed over:
// they may be meant for others.
//
// notBefore is the earliest time that it can be now, zero if nothing is known of
// it. A key whose validity ended before that no longer counts, however early the
// payload claims to be: who stole the key chose that time. If all keys of
// a rule have ended by then, the end of the last one counts.
func (p *Policy) Verify(envelope []byte, payloadType string, notBefore time.Time, read func(payload []byte) (Claims, error)) (*Verified, error) {
	v, err := p.verify(envelope, payloadType, notBefore, read)
	if err != nil {
		return nil, fmt.Errorf("verify envelope: %w", err)
	}
	return v, nil
}

func (p *Policy) verify(envelope []byte, payloadType string, notBefore time.Time, read func([]byte) (Claims, error)) (*Verified, error) {
	if payloadType == "" { // to the DSSE verifier this would mean: any
		return nil, errors.New("no payload type was asked for")
	}
	env, err := parse(envelope)
	if err != nil {
		return nil, err
	}
	if env.PayloadType != payloadType {
		return nil, fmt.Errorf("%w: %q, want %q", ErrPayloadType, env.PayloadType, payloadType)
	}
	if p == nil || len(p.rules) == 0 {
		return nil, fmt.Errorf("%w: there is no policy that believes anybody", ErrUntrusted)
	}
	for i := range p.rules {
		if n := p.rules[i].threshold; n < 1 {
			return nil, fmt.Errorf("threshold is %d, it must be at least 1", n)
		}
	}
	found, err := p.inspect(env)
	if err != nil {
		return nil, err
	}
	// Nobody's payload is parsed: enough keys of one rule must have signed it.
	if err := p.anyMet(found); err != nil {
		return nil, err
	}
	if digest := payloadDigest(found.payload); slices.Contains(p.denied, digest) {
		return nil, fmt.Errorf("%w: the policy denies %s", ErrUntrusted, digest)
	}
	var claims Claims
	if read != nil {
		if claims, err = read(found.payload); err != nil {
			return nil, err
		}
	}
	rules, err := p.covering(claims)
	if err != nil {
		return nil, err
	}
	limited := slices.ContainsFunc(p.rules, func(r rule) bool { last, _ := r.ends(p.revoked); return !last.IsZero() })
	for _, r := range rules {
		if last, endless := r.ends(p.revoked); !endless && notBefore.After(last) {
			// A wrong time, such as that of an image that was built in 2099, must
			// not leave a device without anybody whom it believes.
			notBefore = last
		}
	}
	found.date(claims.Created, notBefore)
	v := &Verified{Payload: found.payload, Timely: !limited}
	for _, r := range rules {
		ids, timely, err := r.met(found)
		if err != nil {
			return nil, err
		}
		v.KeyIDs = append(v.KeyIDs, ids...)
		v.Timely = v.Timely || timely
	}
	slices.Sort(v.KeyIDs)
	v.KeyIDs = slices.Compact(v.KeyIDs)
	for _, m := range found.marks {
		if slices.Contains(v.KeyIDs, m.key) {
			v.Entries = append(v.Entries, m.entries...)
		}
	}
	return v, nil
}

// payloadDigest is what a policy denies a payload by. It is not that of the
// envelope, which is another one each time the payload is signed again.
func payloadDigest(payload []byte) string {
	sum := sha256.Sum256(payload)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (p *Policy) anyMet(found *testimony) error {
	var first error
	for i := range p.rules {
		_, _, err := p.rules[i].met(found)
		if err == nil {
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// covering lists the rules for what a payload claims to be.
func (p *Policy) covering(c Claims) ([]*rule, error) {
	classes := c.Classes
	if len(classes) == 0 {
		classes = []string{""}
	}
	var rules []*rule
	for _, class := range classes {
		covered := false
		for i := range p.rules {
			r := &p.rules[i]
			if !r.covers(class, c.Channel) {
				continue
			}
			covered = true
			if !slices.Contains(rules, r) {
				rules = append(rules, r)
			}
		}
		if !covered {
			return nil, fmt.Errorf("%w: the policy has no rule for %s", ErrUntrusted, about(class, c.Channel))
		}
	}
	return rules, nil
}

func about(class, channel string) string {
	what := "payloads that are for no class"
	if class != "" {
		what = fmt.Sprintf("images of class %q", class)
	}
	if channel == "" {
		return what + " without a channel"
	}
	return fmt.Sprintf("%s in channel %q", what, channel)
}

// Covers reports whether any release can have an image of the class.
func (p *Policy) Covers(class string) bool {
	return p != nil && slices.ContainsFunc(p.rules, func(r rule) bool { return r.classes == nil || slices.Contains(r.classes, class) })
}

// End is when the last rule for images of a class can no longer be met, because
// too few of its signers are left whose validity has not ended; zero if that
// never comes, or there is no rule.
func (p *Policy) End(class string) (last time.Time) {
	for i := range p.rules {
		r := &p.rules[i]
		if r.classes != nil && !slices.Contains(r.classes, class) {
			continue
		}
		var ends []time.Time
		for k := range r.signers {
			s := &r.signers[k]
			n := 1
			if s.authority != nil {
				n = r.threshold // it may vouch for any number of keys
			}
			if !slices.Contains(p.revoked, s.key) {
				ends = append(ends, slices.Repeat([]time.Time{s.end()}, n)...)
			}
		}
		slices.SortFunc(ends, func(a, b time.Time) int { // the latest first
			if a.IsZero() || b.IsZero() {
				return cmp.Compare(btoi(b.IsZero()), btoi(a.IsZero()))
			}
			return b.Compare(a)
		})
		if len(ends) < r.threshold {
			continue
		}
		end := ends[r.threshold-1]
		if end.IsZero() {
			return end
		}
		if end.After(last) {
			last = end
		}
	}
	return last
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Rules counts the rules.
func (p *Policy) Rules() int { return len(p.rules) }

func (r *rule) covers(class, channel string) bool {
	return (r.classes == nil || slices.Contains(r.classes, class)) && (r.channels == nil || slices.Contains(r.channels, channel))
}

// maxDoubts bounds an error, whoever wrote the envelope.
const maxDoubts = 4

// met returns the different keys that signed and are believed by the rule, and
// whether one of them has an end.
func (r *rule) met(found *testimony) (ids []string, timely bool, err error) {
	var doubts []string
	for i := range found.marks {
		m := &found.marks[i]
		if slices.Contains(ids, m.key) {
			continue
		}
		for k := range r.signers {
			mine, doubt := r.signers[k].made(m, found)
			if mine && doubt == "" {
				doubt = r.unlogged(m)
			}
			if mine && doubt == "" {
				ids = append(ids, m.key)
				timely = timely || !r.signers[k].end().IsZero()
				break
			}
			if doubt != "" {
				doubts = append(doubts, doubt)
			}
		}
	}
	if len(ids) >= r.threshold {
		return ids, timely, nil
	}
	text := fmt.Sprintf("signed by %d of the %d %s, need %d", len(ids), len(r.signers), r, r.threshold)
	if doubts = slices.Compact(append(doubts, found.doubts...)); len(doubts) > 0 {
		text += ": " + strings.Join(doubts[:min(len(doubts), maxDoubts)], "; ")
	}
	return nil, false, fmt.Errorf("%w: %s", ErrUntrusted, text)
}

// ends is when the last one of those who may sign ends, zero if none does, and
// whether one never does.
func (r *rule) ends(revoked []string) (last time.Time, endless bool) {
	for i := range r.signers {
		if slices.Contains(revoked, r.signers[i].key) {
			continue
		}
		end := r.signers[i].end()
		endless = endless || end.IsZero()
		if end.After(last) {
			last = end
		}
	}
	return last, endless
}

// end is when s is believed no longer; zero if never.
func (s *party) end() time.Time {
	if s.authority != nil {
		return s.authority.cert.NotAfter
	}
	return s.notAfter
}

// unlogged tells why a signature does not count for want of a log entry.
func (r *rule) unlogged(m *mark) string {
	if r.logs == nil || slices.ContainsFunc(m.entries, func(e LogEntry) bool { return slices.Contains(r.logs, e.Log) }) {
		return ""
	}
	return fmt.Sprintf("the signature by key %s has no entry of log %s", m.key, strings.Join(r.logs, " or "))
}

// String names those who may sign.
func (r *rule) String() string {
	if r.number == 0 {
		return "keys in the keyring"
	}
	s := fmt.Sprintf("signers of rule %d", r.number)
	for _, list := range []struct {
		what  string
		names []string
	}{{"classes", r.classes}, {"channels", r.channels}, {"logs", r.logs}} {
		if list.names != nil {
			s += fmt.Sprintf(", %s %s", list.what, strings.Join(list.names, " "))
		}
	}
	return s
}

// made reports whether s made the mark, and why it does not count if so.
func (s *party) made(m *mark, found *testimony) (mine bool, doubt string) {
	if s.authority == nil {
		if s.key != m.key {
			return false, ""
		}
		return true, s.outdated(found)
	}
	for i := range m.vouchers {
		v := &m.vouchers[i]
		switch {
		case v.authority != s.authority:
		case s.subject != "" && s.subject != m.subject:
			return false, fmt.Sprintf("the certificate is for %s, and signer %s is %s", m.subject, s.name, s.subject)
		case v.err != nil:
			return true, fmt.Sprintf("the certificate for %s: %v", m.subject, v.err)
		default:
			return true, ""
		}
	}
	return false, ""
}

// outdated tells why a key is not valid for the time that the payload claims, and
// for the one that it is at least.
func (s *party) outdated(found *testimony) string {
	const day = time.RFC3339
	switch at := found.created; {
	case !found.dated, s.notBefore.IsZero() && s.notAfter.IsZero():
		return ""
	case at.IsZero():
		return fmt.Sprintf("the validity of key %s is limited, and what it signed tells no time", s.name)
	case at.Before(s.notBefore):
		return fmt.Sprintf("key %s is valid from %s on, and this is of %s", s.name, s.notBefore.Format(day), at.Format(day))
	case s.notAfter.IsZero():
		return ""
	case at.After(s.notAfter):
		return fmt.Sprintf("key %s was valid until %s, and this is of %s", s.name, s.notAfter.Format(day), at.Format(day))
	case found.notBefore.After(s.notAfter):
		return fmt.Sprintf("key %s was valid until %s, and it is at least %s now", s.name, s.notAfter.Format(day), found.notBefore.Format(day))
	}
	return ""
}
