// SPDX-License-Identifier: Apache-2.0

package poll

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/updaterd/updaterd/bundle/channel"
	"github.com/updaterd/updaterd/sign"
	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// A Remote reads byte ranges of one file. An error may have the method Changed()
// bool, if the file is not the one that was read before.
type Remote interface {
	// Range reads n bytes from off.
	Range(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// Size is the size of the whole file, -1 if unknown.
	Size() int64
}

// Options say where to look, and whom to believe. All but Timeout must be set.
type Options struct {
	// Compatible is the kind of this device.
	Compatible string
	// Channel is the name that the metadata must state.
	Channel string
	// URL of the metadata.
	URL string
	// Policy is asked for at every look, so that a key can be withdrawn.
	Policy func() (*sign.Policy, error)
	// TimeFloor is the earliest time that it can be now.
	TimeFloor func() time.Time
	// Open opens a URL.
	Open func(ref string) (Remote, error)
	// Timeout bounds one look; 0 means 1 min.
	Timeout time.Duration
}

// A Poller looks at one channel.
type Poller struct {
	o    Options
	base *url.URL
}

// New makes a Poller.
func New(o Options) (*Poller, error) {
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("configure channel: %w", errors.Unwrap(err))
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	return &Poller{o, base}, nil
}

// Fetch gets the metadata and verifies them.
func (p *Poller) Fetch(ctx context.Context) (*update.ChannelMetadata, error) {
	ctx, cancel := context.WithTimeout(ctx, p.o.Timeout)
	defer cancel()
	m, err := p.fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("check channel %s: %w", p.o.Channel, err)
	}
	return m, nil
}

func (p *Poller) fetch(ctx context.Context) (*update.ChannelMetadata, error) {
	remote, err := p.o.Open(p.o.URL)
	if err != nil {
		return nil, named(update.NameBadArgument, err)
	}
	var envelope []byte
	for range 3 {
		// It may be renewed between two requests, or another node of a CDN may answer.
		if envelope, err = read(ctx, remote); !changed(err) {
			break
		}
	}
	if err != nil {
		return nil, named(update.NameNetwork, err)
	}
	policy, err := p.o.Policy()
	if err != nil {
		return nil, named(update.NameUntrustedSignature, err)
	}
	v, err := channel.Verify(envelope, policy, p.o.TimeFloor())
	switch {
	case errors.Is(err, channel.ErrMalformed), errors.Is(err, sign.ErrMalformed):
		return nil, named(update.NameMalformedBundle, err)
	case err != nil:
		return nil, named(update.NameUntrustedSignature, err)
	case v.Channel != p.o.Channel:
		return nil, &update.Error{Name: update.NameNotCompatible, Message: fmt.Sprintf(
			"%s has the metadata of channel %q; correct name or url of [channel]", update.PublicRef(p.o.URL), v.Channel)}
	}
	m := &update.ChannelMetadata{Serial: v.Serial, Digest: v.Digest.String(), Issued: v.Issued, Expires: v.Expires}
	if best := v.Best(p.o.Compatible); best != nil {
		ref, err := best.At(p.base)
		if err != nil {
			return nil, named(update.NameMalformedBundle, err)
		}
		m.Offer = &update.Offer{Ref: ref, Digest: best.Digest.String(), Version: best.Version, Sequence: best.Sequence, Size: best.Size}
	}
	return m, nil
}

// read reads the whole of a small file. Its length comes with the answer to the
// first request, so that nothing is held that is too long.
func read(ctx context.Context, remote Remote) ([]byte, error) {
	if _, err := readRange(ctx, remote, 1); err != nil {
		return nil, err
	}
	size := remote.Size()
	if size < 1 || size > channel.MaxEnvelope {
		return nil, &update.Error{Name: update.NameMalformedBundle, Message: fmt.Sprintf(
			"the server has a file of %d bytes (-1: it does not tell), and channel metadata have 1 to %d", size, channel.MaxEnvelope)}
	}
	return readRange(ctx, remote, size)
}

func readRange(ctx context.Context, remote Remote, n int64) ([]byte, error) {
	r, err := remote.Range(ctx, 0, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

func changed(err error) bool {
	var c interface{ Changed() bool }
	return errors.As(err, &c) && c.Changed()
}

// named gives err a stable name unless it has one.
func named(name string, err error) error {
	var n update.Named
	if errors.As(err, &n) {
		return err
	}
	return &update.Error{Name: name, Err: err}
}

// firstLook bounds how long after its start a device looks, at the latest, if its
// last look was too long ago.
const firstLook = 5 * time.Minute

// Run looks at once in an interval until ctx ends. last tells when a look last
// succeeded, perhaps in an earlier life; look tells whether it did. Every pause is up
// to a tenth longer or shorter, and a first look within five minutes of the start,
// so that a fleet that was switched on together does not ask together. After a
// failure it looks again in an eighth of the interval.
func Run(ctx context.Context, interval time.Duration, last func() time.Time, look func(context.Context) error) {
	pause := interval - time.Since(last())
	if pause < 0 || pause > interval { // long ago, or the clock was wrong
		pause = 0
	}
	pause += rand.N(min(firstLook, interval) + 1)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = interval
		if look(ctx) != nil {
			pause /= 8
		}
		pause += rand.N(pause/5+1) - pause/10
	}
}
