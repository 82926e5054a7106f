// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// script answers requests without a network, so that the clock can be a fake one.
type script func(i int, req *http.Request) (*http.Response, error)

type scripted struct {
	do    script
	times []time.Time
}

func (s *scripted) RoundTrip(req *http.Request) (*http.Response, error) {
	s.times = append(s.times, time.Now())
	return s.do(len(s.times)-1, req)
}

func scriptedRemote(t *testing.T, o Options, do script) (Remote, *scripted) {
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{do: do}
	c.http.Transport = s
	r, err := c.Open("http://server/f")
	if err != nil {
		t.Fatal(err)
	}
	return r, s
}

func answer(status int, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: http.NoBody, ContentLength: -1}
}

func ten(body io.Reader) *http.Response {
	resp := answer(206, "Content-Range", "bytes 0-9/10")
	resp.Body = io.NopCloser(body)
	return resp
}

func TestBackOffGrowsAndIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := scriptedRemote(t, Options{}, func(i int, _ *http.Request) (*http.Response, error) {
			if i < 12 {
				return nil, errors.New("network is unreachable")
			}
			return ten(bytes.NewReader(make([]byte, 10))), nil
		})
		if _, err := read(r, 0, 10); err != nil {
			t.Fatal(err)
		}
		want := time.Second
		for i := 1; i < len(s.times); i++ {
			if pause := s.times[i].Sub(s.times[i-1]); pause < want/2 || pause > want {
				t.Errorf("pause %d = %v, want between %v and %v", i, pause, want/2, want)
			}
			want = min(2*want, time.Minute)
		}
	})
}

func TestStallPolicy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scriptedRemote(t, Options{Retry: Retry{Stall: 10 * time.Minute}}, func(int, *http.Request) (*http.Response, error) {
			return nil, errors.New("network is unreachable")
		})
		start := time.Now()
		_, err := read(r, 0, 10)
		var e *Error
		if took := time.Since(start); !errors.As(err, &e) || took < 8*time.Minute || took > 10*time.Minute {
			t.Errorf("gave up after %v with %v, want a Network error shortly before 10m", took, err)
		}
	})
}

func TestRetryAfterIsHonouredAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s := scriptedRemote(t, Options{}, func(i int, _ *http.Request) (*http.Response, error) {
			switch i {
			case 0:
				return answer(503, "Retry-After", "90"), nil
			case 1:
				return answer(429, "Retry-After", "1000000"), nil
			}
			return ten(bytes.NewReader(make([]byte, 10))), nil
		})
		if _, err := read(r, 0, 10); err != nil {
			t.Fatal(err)
		}
		if a, b := s.times[1].Sub(s.times[0]), s.times[2].Sub(s.times[1]); a != 90*time.Second || b != maxRetryAfter {
			t.Errorf("pauses %v and %v, want 1m30s and %v", a, b, maxRetryAfter)
		}
	})
}

func TestIdleTimeIsNotTheReadersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		r, s := scriptedRemote(t, Options{}, func(int, *http.Request) (*http.Response, error) { return ten(pr), nil })
		go func() {
			for range 10 {
				time.Sleep(20 * time.Second) // slow, but not stalled
				pw.Write([]byte{1})
			}
		}()
		body, err := r.Range(t.Context(), 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		for range 10 {
			if _, err := body.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour) // a slow medium
		}
		if len(s.times) != 1 {
			t.Errorf("%d requests, want 1", len(s.times))
		}
	})
}

func TestCancelAndDeadlineEndTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := scriptedRemote(t, Options{}, func(int, *http.Request) (*http.Response, error) {
			return nil, errors.New("no route to host")
		})
		ctx, cancel := context.WithCancel(t.Context())
		go func() { time.Sleep(time.Hour); cancel() }()
		_, err := r.Range(ctx, 0, 10)
		var e *Error
		if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
			t.Errorf("Range with a cancelled context = %v, want context.Canceled and no Network error", err)
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = r.Range(ctx, 0, 10)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &e) {
			t.Errorf("Range out of time = %v, want a Network error", err)
		}
	})
}
