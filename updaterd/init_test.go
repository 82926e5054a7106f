// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/updaterd/updaterd/updaterd/internal/server"
	"github.com/updaterd/updaterd/updaterd/internal/server/servertest"
)

// initScript is updaterd.init for a daemon and for places of the test's own.
type initScript struct {
	path, dir string
	env       []string
}

// newInitScript writes the script to be run by a shell, with the programs in bin.
func newInitScript(t *testing.T, shell, bin, daemon, configuration, bus string) *initScript {
	t.Helper()
	text, err := os.ReadFile("data/updaterd.init")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for old, new := range map[string]string{
		"#!/bin/sh\n":                          "#!" + shell + "\n",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin\n": "PATH=" + bin + "\n",
		`EXEC="/usr/bin/$DAEMON"`:              "EXEC=" + daemon,
		`PIDFILE="/var/run/$DAEMON.pid"`:       "PIDFILE=" + dir + "/pid",
		`KEEPER="/var/run/$DAEMON.keeper.pid"`: "KEEPER=" + dir + "/keeper",
		`[ -r "/etc/default/$DAEMON" ]`:        "[ -r " + dir + "/default ]",
		`. "/etc/default/$DAEMON"`:             ". " + dir + "/default",
	} {
		if n := bytes.Count(text, []byte(old)); n != 1 {
			t.Fatalf("updaterd.init has %q %d times, want once", old, n)
		}
		text = bytes.Replace(text, []byte(old), []byte(new), 1)
	}
	put(t, dir, "default", fmt.Appendf(nil, "UPDATERD_ARGS=\"--config %s\"\n", configuration))
	s := &initScript{filepath.Join(dir, "updaterd.init"), dir, append(os.Environ(), "DBUS_SYSTEM_BUS_ADDRESS="+bus, "LOG="+dir+"/log")}
	if err := os.WriteFile(s.path, text, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.run(t, "stop") })
	return s
}

// run runs the script and returns its exit code and what it said.
func (s *initScript) run(t *testing.T, verb string) (int, string) {
	t.Helper()
	cmd := exec.Command(s.path, verb)
	cmd.Env = s.env
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Minute // what start leaves behind must not hold these
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v: %s", verb, err, &said)
	}
	return cmd.ProcessState.ExitCode(), said.String()
}

func (s *initScript) want(t *testing.T, verb string, code int, text string) {
	t.Helper()
	if got, said := s.run(t, verb); got != code || !strings.Contains(said, text) {
		t.Fatalf("%s = %d, %q; want %d, %q", verb, got, said, code, text)
	}
}

// pid is the number of the daemon's process, 0 if there is none.
func (s *initScript) pid() int {
	text, err := os.ReadFile(filepath.Join(s.dir, "pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

func (s *initScript) log(t *testing.T) string {
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(text)
}

// eventually waits for something to come true.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// binaries is the search path with start-stop-daemon of dpkg or, where everything
// is BusyBox's, the shell too; and the shell. The logger writes to $LOG.
func binaries(t *testing.T, kind string) (path, shell string) {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "logger", []byte("#!/bin/sh\necho \"$*\" >>\"$LOG\"\nexec cat >>\"$LOG\"\n"))
	if err := os.Chmod(filepath.Join(dir, "logger"), 0o755); err != nil {
		t.Fatal(err)
	}
	if kind == "dpkg" {
		if _, err := os.Stat("/sbin/start-stop-daemon"); err != nil {
			t.Skip("skipped: no start-stop-daemon of dpkg")
		}
		return dir + ":/usr/sbin:/usr/bin:/sbin:/bin", "/bin/sh"
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("skipped: no busybox; .ci/setup installs it")
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, applet := range strings.Fields(string(applets)) {
		if err := os.Symlink(busybox, filepath.Join(dir, applet)); err != nil && !os.IsExist(err) {
			t.Fatal(err)
		}
	}
	return dir, busybox + " sh"
}

// runnable is a configuration file and the daemon for it.
func runnable(t *testing.T) (daemon, configuration string) {
	t.Helper()
	dir, c := fitting(t)
	put(t, dir, "updaterd.toml", fmt.Appendf(nil, "compatible = \"test\"\ndata_dir = %q\nkeyring = %q\n[boot]\nfw_env_config = %q\n[slots.\"rootfs.a\"]\ndevice = %q\n[slots.\"rootfs.b\"]\ndevice = %q\n",
		c.DataDir, c.Keyring, c.Boot.FwEnvConfig, c.Device("rootfs", "a"), c.Device("rootfs", "b")))
	daemon = filepath.Join(dir, "updaterd")
	if out, err := exec.Command("go", "build", "-o", daemon, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return daemon, filepath.Join(dir, "updaterd.toml")
}

func TestInitScript(t *testing.T) {
	daemon, configuration := runnable(t)
	for _, kind := range []string{"dpkg", "busybox"} {
		t.Run(kind, func(t *testing.T) {
			bin, shell := binaries(t, kind)
			address := servertest.Bus(t)
			bus := servertest.Connect(t, address).BusObject()
			onBus := func(is bool) func() bool {
				return func() bool {
					var has bool
					return bus.Call("org.freedesktop.DBus.NameHasOwner", 0, server.Name).Store(&has) == nil && has == is
				}
			}
			s := newInitScript(t, shell, bin, daemon, configuration, address)

			s.want(t, "status", 3, "does not run")
			s.want(t, "stop", 0, "OK")
			s.want(t, "start", 0, "OK")
			eventually(t, "the service is on D-Bus", onBus(true))
			s.want(t, "status", 0, "runs")
			first := s.pid()
			if name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", first)); err != nil || name != daemon {
				t.Fatalf("process %d is %q, %v", first, name, err)
			}
			s.want(t, "start", 0, "was running")
			if pid := s.pid(); pid != first {
				t.Fatalf("a second start made process %d of %d", pid, first)
			}

			// A daemon that was killed comes back.
			if p, err := os.FindProcess(first); err != nil || p.Kill() != nil {
				t.Fatalf("kill %d: %v", first, err)
			}
			eventually(t, "the service is started again", func() bool { return s.pid() != first && onBus(true)() })
			second := s.pid()

			for _, verb := range []string{"restart", "reload", "force-reload"} {
				s.want(t, verb, 0, "OK")
				eventually(t, "the service is back after "+verb, func() bool { return s.pid() != second && onBus(true)() })
				second = s.pid()
			}

			s.want(t, "stop", 0, "OK")
			if !onBus(false)() {
				t.Error("the service is on D-Bus after stop")
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", second)); err == nil {
				t.Errorf("process %d is there after stop", second)
			}
			for _, name := range []string{"pid", "keeper"} {
				if _, err := os.Stat(filepath.Join(s.dir, name)); err == nil {
					t.Errorf("%s is there after stop", name)
				}
			}
			s.want(t, "status", 3, "does not run")
			if log := s.log(t); !strings.Contains(log, "-t updaterd -p daemon.info\n") || !strings.Contains(log, "level=") {
				t.Errorf("the daemon's messages went nowhere: %q", log)
			}
			s.want(t, "frob", 2, "Usage")
		})
	}
}

// A daemon that cannot start is tried again and again, says why in the log, and
// can be stopped.
func TestInitScriptOfADaemonThatFails(t *testing.T) {
	bin, shell := binaries(t, "dpkg")
	dir := t.TempDir()
	put(t, dir, "updaterd", []byte("#!/bin/sh\necho out of order >&2\n"))
	if err := os.Chmod(filepath.Join(dir, "updaterd"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := newInitScript(t, shell, bin, filepath.Join(dir, "updaterd"), dir+"/none", "")
	s.want(t, "start", 0, "OK")
	eventually(t, "the second try", func() bool { return strings.Count(s.log(t), "out of order") == 2 })
	s.want(t, "status", 1, "started again in a moment")
	s.want(t, "stop", 0, "OK")
	s.want(t, "status", 3, "does not run")
}

// One whose keeper was killed is stopped as well, and replaced at the next start.
func TestInitScriptWithoutItsKeeper(t *testing.T) {
	daemon, configuration := runnable(t)
	bin, shell := binaries(t, "dpkg")
	s := newInitScript(t, shell, bin, daemon, configuration, servertest.Bus(t))
	for _, verb := range []string{"start", "stop"} {
		s.want(t, "start", 0, "OK")
		eventually(t, "the daemon runs", func() bool { code, _ := s.run(t, "status"); return code == 0 })
		orphan := s.pid()
		keeper, err := os.ReadFile(filepath.Join(s.dir, "keeper"))
		if err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("kill", "-KILL", strings.TrimSpace(string(keeper))).CombinedOutput(); err != nil {
			t.Fatalf("kill the keeper: %v: %s", err, out)
		}
		s.want(t, verb, 0, "OK")
		// Not whether the process is there: who buries orphans may take its time.
		if name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", orphan)); err == nil {
			t.Errorf("process %d still runs %s after %s", orphan, name, verb)
		}
	}
}

// A start or a stop finds what the start just before it began, however long that
// takes. Here the keeper comes a second after start-stop-daemon has returned.
func TestInitScriptInHaste(t *testing.T) {
	daemon, configuration := runnable(t)
	for _, kind := range []string{"dpkg", "busybox"} {
		t.Run(kind, func(t *testing.T) {
			bin, shell := binaries(t, kind)
			real := "/sbin/start-stop-daemon"
			if kind == "busybox" {
				real = filepath.Join(bin, "start-stop-daemon")
			}
			slow := t.TempDir()
			put(t, slow, "start-stop-daemon", []byte("#!/bin/sh\n[ \"$1\" = --start ] || exec "+real+" \"$@\"\n(sleep 1; exec "+real+" \"$@\") >/dev/null 2>&1 &\n"))
			if err := os.Chmod(filepath.Join(slow, "start-stop-daemon"), 0o755); err != nil {
				t.Fatal(err)
			}
			s := newInitScript(t, shell, slow+":"+bin, daemon, configuration, servertest.Bus(t))
			alive := func() string {
				out, _ := exec.Command("pgrep", "-f", "^"+daemon+" ").Output()
				return string(out)
			}
			s.want(t, "start", 0, "OK")
			s.want(t, "start", 0, "was running")
			eventually(t, "the daemon runs", func() bool { code, _ := s.run(t, "status"); return code == 0 })
			if got, want := alive(), fmt.Sprintln(s.pid()); got != want {
				t.Errorf("after two starts the processes %q run, want %q", got, want)
			}
			s.want(t, "stop", 0, "OK")
			s.want(t, "start", 0, "OK")
			s.want(t, "stop", 0, "OK")
			s.want(t, "status", 3, "does not run")
			if got := alive(); got != "" {
				t.Errorf("after stop the processes %q run", got)
			}
		})
	}
}

func TestInitScriptIsClean(t *testing.T) {
	shellcheck, err := exec.LookPath("shellcheck")
	if err != nil {
		t.Skip("skipped: no shellcheck; .ci/setup installs it")
	}
	if out, err := exec.Command(shellcheck, "data/updaterd.init").CombinedOutput(); err != nil {
		t.Errorf("shellcheck: %v\n%s", err, out)
	}
}

// What an init needs is installed for that init alone; the rest is the same.
func TestInstallForEachInit(t *testing.T) {
	install := func(args ...string) (string, error) {
		dir := t.TempDir()
		out, err := exec.Command("make", append([]string{"-s", "-C", "..", "install", "BINARY=/bin/true", "DESTDIR=" + dir}, args...)...).CombinedOutput()
		if err != nil {
			return string(out), err
		}
		var files []string
		err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if !d.IsDir() {
				files = append(files, strings.TrimPrefix(path, dir))
			}
			return err
		})
		return strings.Join(files, "\n") + "\n", err
	}
	base, err := install("INIT=none")
	if err != nil {
		t.Fatalf("%v: %s", err, base)
	}
	const unit = "/usr/lib/systemd/system/emergency.target.wants/updaterd-trial.service\n/usr/lib/systemd/system/sysinit.target.wants/updaterd-trial.service\n" +
		"/usr/lib/systemd/system/updaterd-trial.service\n/usr/lib/systemd/system/updaterd.service\n"
	const activation = "/usr/share/dbus-1/system-services/org.updaterd.Updater1.service\n"
	for _, tc := range []struct{ args, more []string }{
		{nil, []string{unit, activation}},
		{[]string{"INIT=systemd"}, []string{unit, activation}},
		{[]string{"INIT=sysvinit"}, []string{"/etc/init.d/updaterd\n"}},
		{[]string{"INIT=sysvinit", "INITSCRIPT=S80updaterd", "INITDIR=/init"}, []string{"/init/S80updaterd\n"}},
		{[]string{"INIT=systemd sysvinit"}, []string{unit, activation, "/etc/init.d/updaterd\n"}},
	} {
		got, err := install(tc.args...)
		if err != nil {
			t.Fatalf("%v: %s", err, got)
		}
		for _, file := range tc.more {
			if !strings.Contains(got, file) {
				t.Errorf("make install %s has no %s", tc.args, file)
			}
			got = strings.Replace(got, file, "", 1)
		}
		if got != base {
			t.Errorf("make install %s has\n%sand with INIT=none\n%s", tc.args, got, base)
		}
	}
	if said, err := install("INIT=upstart"); err == nil || !strings.Contains(said, `INIT is "upstart"`) {
		t.Errorf("make install INIT=upstart: %v, %s", err, said)
	}
}
