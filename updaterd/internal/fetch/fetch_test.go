// SPDX-License-Identifier: Apache-2.0

package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRangeAsksOnceForWhatIsNeeded(t *testing.T) {
	data := pattern(100_000)
	s := newServer(t, data)
	r := open(t, quick, s.URL+"/f.upb")
	if r.Size() != -1 {
		t.Fatalf("Size() = %d before the first answer, want -1", r.Size())
	}
	mustRead(t, r, data, 0, 16)
	mustRead(t, r, data, 16, 999)
	mustRead(t, r, data, 99_999, 1)
	mustRead(t, r, data, 5, 0)
	if got, want := s.log(), []string{"0+16", "16+999", "99999+1"}; !slices.Equal(got, want) {
		t.Errorf("requests = %v, want %v", got, want)
	}
	if r.Size() != 100_000 || r.Fetched() != 1016 || s.total() != 1016 {
		t.Errorf("Size() = %d, Fetched() = %d, served %d; want 100000, 1016, 1016", r.Size(), r.Fetched(), s.total())
	}
}

func TestRangeResumesAtTheNextByte(t *testing.T) {
	data := pattern(20_000)
	for _, cut := range []int64{0, 1, 4095, 4096, 9_999} {
		s := newServer(t, data)
		s.fault = func(s *server, i int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
			if i < 3 && n > cut {
				s.send(w, off, n, cut)
			}
			return i < 3 && n > cut
		}
		r := open(t, quick, s.URL)
		mustRead(t, r, data, 100, 19_000)
		if s.total() != 19_000 || r.Fetched() != 19_000 {
			t.Errorf("cut after %d bytes: served %d and fetched %d bytes for 19000", cut, s.total(), r.Fetched())
		}
	}
}

func TestStalledBodyIsResumed(t *testing.T) {
	data := pattern(10_000)
	s := newServer(t, data)
	s.fault = func(s *server, i int, w http.ResponseWriter, r *http.Request, off, n int64) bool {
		if i > 0 {
			return false
		}
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(s.data)))
		w.Header().Set("Content-Length", fmt.Sprint(n))
		w.WriteHeader(http.StatusPartialContent)
		s.write(w, off, 1234)
		<-r.Context().Done() // says nothing until the client hangs up
		return true
	}
	r := open(t, quick, s.URL)
	mustRead(t, r, data, 0, 10_000)
	if got, want := s.log(), []string{"0+10000", "1234+8766"}; !slices.Equal(got, want) {
		t.Errorf("requests = %v, want %v", got, want)
	}
}

func TestSilentServerIsAskedAgain(t *testing.T) {
	data := pattern(100)
	s := newServer(t, data)
	s.fault = func(_ *server, i int, _ http.ResponseWriter, r *http.Request, _, _ int64) bool {
		if i == 0 {
			<-r.Context().Done()
		}
		return i == 0
	}
	mustRead(t, open(t, quick, s.URL), data, 0, 100)
}

// Answers that are wrong must be recognised from their header: the second
// request never comes, and no byte of the body is taken.
func TestWrongAnswers(t *testing.T) {
	data := pattern(50_000)
	partial := func(status int, header ...string) func(*server, int, http.ResponseWriter, *http.Request, int64, int64) bool {
		return func(s *server, _ int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
			for i := 0; i < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			if status == 200 || status == 206 {
				s.write(w, 0, 1000)
			}
			return true
		}
	}
	for name, c := range map[string]struct {
		fault     func(*server, int, http.ResponseWriter, *http.Request, int64, int64) bool
		want      string
		status    int
		truncated bool
	}{
		"range ignored":         {partial(200), "ignores Range", 200, false},
		"no content range":      {partial(206), "Content-Range", 206, false},
		"other start":           {partial(206, "Content-Range", "bytes 99-1098/50000"), "asked for bytes 100-1099", 206, false},
		"longer":                {partial(206, "Content-Range", "bytes 100-2000/50000"), "asked for bytes 100-1099", 206, false},
		"shorter":               {partial(206, "Content-Range", "bytes 100-1098/50000"), "asked for bytes 100-1099", 206, false},
		"short file":            {partial(206, "Content-Range", "bytes 100-1049/1050"), "file ends at byte 1050", 206, true},
		"length differs":        {partial(206, "Content-Range", "bytes 100-1099/50000", "Content-Length", "1001"), "length 1001", 206, false},
		"inconsistent":          {partial(206, "Content-Range", "bytes 100-1099/1000"), "Content-Range", 206, false},
		"negative":              {partial(206, "Content-Range", "bytes -1-1099/5000"), "Content-Range", 206, false},
		"other unit":            {partial(206, "Content-Range", "lines 100-1099/5000"), "Content-Range", 206, false},
		"multipart":             {partial(206, "Content-Type", "multipart/byteranges; boundary=x"), "Content-Range", 206, false},
		"compressed":            {partial(206, "Content-Encoding", "gzip", "Content-Range", "bytes 100-1099/50000"), "content encoding", 206, false},
		"no content":            {partial(204), "204 No Content", 204, false},
		"not found":             {partial(404), "404 Not Found", 404, false},
		"forbidden":             {partial(403), "403 Forbidden", 403, false},
		"gone":                  {partial(410), "410 Gone", 410, false},
		"range not satisfiable": {partial(416), "file ends before byte 100", 416, true},
		"not modified":          {partial(304), "304 Not Modified", 304, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, data)
			s.fault = c.fault
			r := open(t, quick, s.URL)
			got, err := read(r, 100, 1000)
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), c.want) || len(got) > 0 {
				t.Fatalf("Range = %d bytes, %v; want an error with %q", len(got), err, c.want)
			}
			if e.ErrorName() != "Network" || e.Status != c.status || e.Truncated() != c.truncated || e.Changed() {
				t.Errorf("error %+v; want name Network, status %d, truncated %v", e, c.status, c.truncated)
			}
			if len(s.log()) != 1 || r.Fetched() != 0 {
				t.Errorf("%d requests, %d bytes read; want 1 and 0", len(s.log()), r.Fetched())
			}
			if errors.Is(err, ErrNoRange) != (name == "range ignored") {
				t.Errorf("errors.Is(%v, ErrNoRange) is wrong", err)
			}
		})
	}
}

func TestWholeFileAnswerServesItsBeginning(t *testing.T) {
	data := pattern(3 << 20)
	s := newServer(t, data)
	s.fault = func(s *server, _ int, w http.ResponseWriter, _ *http.Request, _, _ int64) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data)
		return true
	}
	r := open(t, quick, s.URL)
	mustRead(t, r, data, 0, 16)
	if r.Fetched() != 16 || r.Size() != 3<<20 {
		t.Errorf("Fetched() = %d, Size() = %d; want 16 and the whole size", r.Fetched(), r.Size())
	}
	if _, err := read(r, 16, 100); !errors.Is(err, ErrNoRange) {
		t.Errorf("Range(16, 100) = %v, want ErrNoRange", err)
	}
}

func TestTransientStatusIsRetried(t *testing.T) {
	data := pattern(1000)
	for _, status := range []int{408, 425, 429, 500, 502, 503, 504} {
		s := newServer(t, data)
		s.fault = func(_ *server, i int, w http.ResponseWriter, _ *http.Request, _, _ int64) bool {
			if i < 2 {
				w.Header().Set("Retry-After", "0")
				w.WriteHeader(status)
			}
			return i < 2
		}
		mustRead(t, open(t, quick, s.URL), data, 1, 999)
		if n := len(s.log()); n != 3 {
			t.Errorf("status %d: %d requests, want 3", status, n)
		}
	}
}

func TestChangedFileIsReportedBeforeItsBytes(t *testing.T) {
	data := pattern(10_000)
	s := newServer(t, data)
	s.fault = func(s *server, i int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
		if i == 1 { // replaced while this answer is on its way
			s.mu.Lock()
			s.etag = `"2"`
			s.mu.Unlock()
			s.send(w, off, n, 500)
		}
		return i == 1
	}
	r := open(t, quick, s.URL)
	mustRead(t, r, data, 0, 16)
	got, err := read(r, 16, 2000)
	var e *Error
	if !errors.As(err, &e) || !e.Changed() || len(got) != 500 {
		t.Fatalf("Range over a change = %d bytes, %v; want the first 500 and a changed error", len(got), err)
	}
	// Who goes on after that means the new file.
	mustRead(t, r, data, 0, 16)
}

// A shorter file in the old one's place is a change, not a truncation.
func TestReplacedByAShorterFile(t *testing.T) {
	data := pattern(10_000)
	for _, size := range []int{9_000, 3_000} { // the range reaches beyond the end, or begins there
		for _, etag := range []string{`"1"`, `"2"`} {
			s := newServer(t, data)
			r := open(t, quick, s.URL)
			mustRead(t, r, data, 0, 16)
			s.mu.Lock()
			s.etag = etag
			s.mu.Unlock()
			s.fault = func(s *server, _ int, w http.ResponseWriter, _ *http.Request, off, n int64) bool {
				if off < int64(size) {
					n = min(n, int64(size)-off)
					w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, size))
					w.WriteHeader(206)
					s.write(w, off, n)
					return true
				}
				w.Header().Del("ETag")
				w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
				w.WriteHeader(416)
				return true
			}
			var e *Error
			if _, err := read(r, 5000, 5000); !errors.As(err, &e) || !e.Changed() {
				t.Errorf("size %d, ETag %s: Range = %v, want a changed error", size, etag, err)
			}
			mustRead(t, r, data, 0, 16)
			if _, err := read(r, 5000, 5000); !errors.As(err, &e) || !e.Truncated() {
				t.Errorf("size %d, ETag %s: Range = %v, want a truncated error", size, etag, err)
			}
		}
	}
}

func TestRedirectLosesCredentials(t *testing.T) {
	data := pattern(1000)
	target := newServer(t, data)
	var auth, referer string
	target.fault = func(_ *server, _ int, _ http.ResponseWriter, r *http.Request, _, _ int64) bool {
		auth, referer = r.Header.Get("Authorization"), r.Header.Get("Referer")
		return false
	}
	var front *httptest.Server
	front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/ok" && r.Header.Get("Authorization") == "" {
			t.Error("credentials in the URL were not sent to its own host")
		}
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, front.URL+"/loop", http.StatusFound)
		case "/file":
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		default:
			http.Redirect(w, r, target.URL+"/f", http.StatusTemporaryRedirect)
		}
	}))
	defer front.Close()
	base := strings.Replace(front.URL, "http://", "http://user:secret@", 1)
	mustRead(t, open(t, quick, base+"/ok?token=abc"), data, 10, 100)
	if auth != "" || referer != "" {
		t.Errorf("another host was told Authorization %q, Referer %q; want neither", auth, referer)
	}
	for _, path := range []string{"/loop?token=abc", "/file?token=abc"} {
		if _, err := read(open(t, quick, base+path), 0, 10); err == nil || !strings.Contains(err.Error(), "redirect") {
			t.Errorf("%s: error = %v, want one about the redirect", path, err)
		} else if strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "abc") {
			t.Errorf("error %q tells credentials", err)
		}
	}
}

// An answer cannot fill the memory with its header.
func TestHeaderIsBounded(t *testing.T) {
	s := newServer(t, pattern(100))
	s.fault = func(_ *server, i int, w http.ResponseWriter, _ *http.Request, _, _ int64) bool {
		for k := range 1000 {
			w.Header().Set(fmt.Sprintf("X-%d", k), strings.Repeat("x", 1000))
		}
		return false
	}
	o := quick
	o.Retry.Stall = 50 * time.Millisecond
	if _, err := read(open(t, o, s.URL), 0, 10); err == nil || !strings.Contains(err.Error(), "header") {
		t.Errorf("Range = %v, want an error about the header", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	c, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, ref := range []string{"", "relative/file", "ftp://host/f", "ftp://me:secret@host/f?token=secret", "file:///f", "http://", "http://%zz/", "mailto:x", dir, filepath.Join(dir, "missing")} {
		if _, err := c.Open(ref); err == nil {
			t.Errorf("Open(%q) succeeded", ref)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("error %q tells credentials", err)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string]string{
		"bytes 0-15/100": "0 15 100", "bytes 5-5/6": "5 5 6", "bytes 1-2/*": "1 2 -1",
		"": "", "bytes": "", "bytes */100": "", "bytes 2-1/100": "", "bytes 0-100/100": "", "bytes +0-1/2": "",
		"bytes 0-15": "", "bytes 0-1/ 2": "", "bytes 0-99999999999999999999/*": "", "Bytes 0-1/2": "",
	} {
		a, b, n, err := parseContentRange(s)
		if got := fmt.Sprint(a, b, n); (err == nil) != (want != "") || (err == nil && got != want) {
			t.Errorf("parseContentRange(%q) = %s, %v; want %q", s, got, err, want)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	f.Add("bytes 0-15/100")
	f.Add("bytes 1-2/*")
	f.Fuzz(func(t *testing.T, s string) {
		a, b, n, err := parseContentRange(s)
		if err != nil {
			return
		}
		if a < 0 || b < a || (n >= 0 && b >= n) {
			t.Fatalf("parseContentRange(%q) = %d, %d, %d", s, a, b, n)
		}
		total := "*"
		if n >= 0 {
			total = fmt.Sprint(n)
		}
		a2, b2, n2, err := parseContentRange(fmt.Sprintf("bytes %d-%d/%s", a, b, total))
		if a2 != a || b2 != b || n2 != n || err != nil {
			t.Fatalf("%q does not survive a round trip", s)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for s, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "x": 0,
		"Fri, 02 Jan 2026 03:05:05 GMT": time.Minute, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		if got := retryAfter(s, now); got != want {
			t.Errorf("retryAfter(%q) = %v, want %v", s, got, want)
		}
	}
}
