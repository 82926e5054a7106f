// SPDX-License-Identifier: Apache-2.0

package server

import (
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"

	"github.com/updaterd/updaterd/updaterd/internal/update"
)

// keptJobs is how many jobs can be asked about, the one in hand included.
const keptJobs = 8

// A job is one that the server has seen.
type job struct {
	status    update.JobStatus
	shown     values // as last announced; nil before the first time
	announced bool   // JobFinished was sent
}

// jobObject has the methods of org.updaterd.Updater1.Job, for every job.
type jobObject Server

func (o *jobObject) Cancel(msg dbus.Message) *dbus.Error {
	return (*Server)(o).control(&msg, "cancel", o.updater.Cancel)
}

func (o *jobObject) Pause(msg dbus.Message) *dbus.Error {
	return (*Server)(o).control(&msg, "pause", o.updater.Pause)
}

func (o *jobObject) Resume(msg dbus.Message) *dbus.Error {
	return (*Server)(o).control(&msg, "resume", o.updater.Resume)
}

func (s *Server) control(msg *dbus.Message, what string, f func(id uint64) error) *dbus.Error {
	_, done, err := s.request(msg, actionControlJob)
	if err != nil {
		return busError(err)
	}
	defer done()
	status, e := s.job(messagePath(msg))
	if e != nil {
		return e
	}
	err = f(status.ID)
	s.log.Info(what+" requested", "job", status.ID, "error", err)
	return busError(err)
}

// job finds the job at path: the one in hand as it is now, or one of those kept.
func (s *Server) job(path dbus.ObjectPath) (*update.JobStatus, *dbus.Error) {
	id, ok := jobID(path)
	if !ok {
		return nil, unknown("UnknownObject", "there is no object %s", path)
	}
	if now := s.updater.Snapshot().Job; now != nil && now.ID == id {
		return now, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range s.jobs {
		if j.status.ID == id {
			status := j.status
			return &status, nil
		}
	}
	return nil, unknown("UnknownObject", "there is no job %d; only the last %d are kept, see History for older ones", id, keptJobs)
}

// note takes over the newest status of a job and forgets the oldest. s.mu is held.
func (s *Server) note(status *update.JobStatus) *job {
	if status == nil {
		return nil
	}
	for _, j := range s.jobs {
		if j.status.ID == status.ID {
			j.status = *status
			return j
		}
	}
	j := &job{status: *status}
	s.jobs = append(s.jobs, j)
	if len(s.jobs) > keptJobs {
		s.jobs = s.jobs[len(s.jobs)-keptJobs:]
	}
	return j
}

// supersede ends the jobs that were not seen to end because the next one
// followed too closely, so that nobody waits for them for ever. s.mu is held.
func (s *Server) supersede(snap update.Snapshot) {
	for _, j := range s.jobs {
		if j.status.Finished || snap.Job != nil && snap.Job.ID == j.status.ID {
			continue
		}
		j.status.Finished = true
		j.status.Result = update.Result{Outcome: update.Failed, Error: update.NameInternal, Message: "the job's end was not seen; see History"}
		if snap.Job == nil && snap.Last != nil {
			j.status.Result = *snap.Last
		}
	}
}

func jobPath(id uint64) dbus.ObjectPath {
	return jobRoot + dbus.ObjectPath("/"+strconv.FormatUint(id, 10))
}

// jobID is the inverse of jobPath: "007" is not another name of job 7.
func jobID(path dbus.ObjectPath) (uint64, bool) {
	text, ok := strings.CutPrefix(string(path), string(jobRoot)+"/")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(text, 10, 64)
	return id, err == nil && jobPath(id) == path
}

func messagePath(msg *dbus.Message) dbus.ObjectPath {
	path, _ := msg.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	return path
}
