// SPDX-License-Identifier: Apache-2.0

package update

// A State is what the journal says is in hand. Its values are persisted: the
// daemon of the other slot reads them, so they never change and none is reused.
type State string

// The states. Failing is not a state: it is StateIdle plus a last result.
const (
	StateIdle          State = "idle"
	StateDownloading   State = "downloading"
	StateInstalling    State = "installing"
	StateInstalled     State = "installed"
	StatePendingReboot State = "pending-reboot"
	StateTrial         State = "trial"
	StateRollingBack   State = "rolling-back"
)

// States lists every state, in the order in which an update passes them.
func States() []State {
	return []State{StateIdle, StateDownloading, StateInstalling, StateInstalled,
		StatePendingReboot, StateTrial, StateRollingBack}
}
