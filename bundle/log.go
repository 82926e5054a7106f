// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"github.com/updaterd/updaterd/sign"
)

// LogEntries lists what logs have of the signatures. Those whose Log is set are proven, as
// [sign.Verified] has them; nobody has checked the others.
func (f *File) LogEntries() ([]sign.LogEntry, error) {
	all, err := sign.Entries(f.envelope)
	for i, e := range all {
		for _, proven := range f.Entries {
			if e.Origin == proven.Origin && e.Index == proven.Index && e.Size == proven.Size {
				all[i] = proven
			}
		}
	}
	return all, err
}

// LogRequest is [sign.Policy.LogRequest] for a signature of the bundle.
func (f *File) LogRequest(policy *sign.Policy, keyID string, rekor int) ([]byte, error) {
	return policy.LogRequest(f.envelope, PayloadType, keyID, rekor)
}

// AttachEntry writes the bundle to out with what a log answered beside the signature that it
// is about, as [sign.Policy.AttachEntry] does. out may be f's own path.
func (f *File) AttachEntry(out string, policy *sign.Policy, answer []byte) (*sign.LogEntry, error) {
	envelope, entry, err := policy.AttachEntry(f.envelope, PayloadType, answer)
	if err != nil {
		return nil, err
	}
	return entry, f.rewrite(out, envelope)
}
