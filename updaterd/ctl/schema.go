// SPDX-License-Identifier: Apache-2.0

package ctl

// A schema describes one JSON object that is printed. A test compares these
// with the types of package client.
type schema struct {
	name   string
	about  string
	fields []field
}

type field struct{ name, kind, about string }

func schemas() []schema {
	return []schema{
		{"status", "what status prints", []field{
			{"state", "string", "idle, downloading, installing, installed, pending-reboot, trial or rolling-back"},
			{"version", "string", "version of the booted system, empty if it is not known"},
			{"compatible", "string", "what a bundle must be made for"},
			{"device_id", "string", "which device it is, as permits call it; empty if it has no id"},
			{"groups", "array of string", "the groups that it is in, as permits call them"},
			{"booted_slot", "string", "a or b; empty if it is not proven"},
			{"primary_slot", "string", "the slot that is started next"},
			{"target_slot", "string", "the slot that an install writes"},
			{"bad_slots", "array of string", "slots that the bootloader never starts"},
			{"trial", "boolean", "the system that runs is not confirmed yet"},
			{"tries_left", "number", "counted starts that remain in a trial"},
			{"slots", "object", "a slot for each name as in rootfs.a"},
			{"floor", "number", "the version floor: the lowest sequence that may be installed"},
			{"floor_places", "array of string", "where it comes from: data_dir, floor_store, image"},
			{"time_floor", "string", "the earliest time that it can be now"},
			{"job", "object or null", "the job in hand"},
			{"last_result", "object or null", "the result of the last job"},
			{"problems", "array of string", "what keeps an install from working, or what the job waits for"},
			{"channel", "object or null", "the channel that updates come from"},
		}},
		{"channel", "what check prints, install if nothing newer is offered, and part of status", []field{
			{"name", "string", "as it is configured"},
			{"ref", "string", "URL of its metadata"},
			{"freshness", "string", "fresh, expired, or never: no metadata were seen"},
			{"serial", "number", "the highest that was seen"},
			{"issued", "string", "signed time of the metadata"},
			{"expires", "string", "until when they hold"},
			{"checked", "string", "when it last answered with metadata that are believed and no replay"},
			{"error", "string", "why the last check failed, empty if it did not"},
			{"offer", "object or null", "the release that is newer than what runs"},
		}},
		{"offer", "the release of channel", []field{
			{"ref", "string", "URL of the bundle"},
			{"digest", "string", "of its manifest, the release's identity"},
			{"version", "string", "of the release"},
			{"sequence", "number", "orders releases"},
			{"size", "number", "of the bundle, 0 if it is not told"},
		}},
		{"slot", "one of the slots of status", []field{
			{"digest", "string", "of the image, empty if it is not known"},
			{"size", "number", "of the image"},
			{"build_id", "string", "from the image's os-release"},
			{"version", "string", "of the release it came with"},
			{"verified", "boolean", "written and read back by updaterd"},
			{"booted", "boolean", "this system runs from it"},
			{"primary", "boolean", "it is started next"},
			{"bad", "boolean", "the bootloader never starts it"},
		}},
		{"job", "what install and watch print, one on each line", []field{
			{"job", "number", "the job's number"},
			{"ref", "string", "URL or path of the bundle"},
			{"version", "string", "of the release"},
			{"state", "string", "as in status"},
			{"stage", "string", "download, compare, install or verify"},
			{"done", "number", "bytes of this stage that are done"},
			{"total", "number", "bytes of this stage"},
			{"fetched", "number", "bytes that came over the wire since the job began"},
			{"rate", "number", "bytes per second"},
			{"time_left", "number", "seconds, 0 if it is not known"},
			{"paused", "boolean", "it waits for resume"},
			{"result", "string", "empty until the job has ended, then success, failed, cancelled or rolled-back"},
			{"error", "string", "stable error name, empty if it ended well"},
			{"message", "string", "a sentence for a person"},
			{"seconds", "number", "since the command began; not in status"},
		}},
		{"result", "an element of what history prints, newest first", []field{
			{"result", "string", "success, failed, cancelled or rolled-back"},
			{"error", "string", "stable error name"},
			{"message", "string", "a sentence for a person"},
			{"version", "string", "of the release"},
			{"digest", "string", "of the release's manifest"},
			{"from", "string", "slot that ran before"},
			{"to", "string", "slot that was written"},
			{"time", "string", "when it ended"},
			{"override", "boolean", "a person confirmed the trial, not the checks"},
			{"fetched", "number", "bytes that came over the wire"},
			{"written", "number", "bytes written to slots"},
			{"blocks_written", "number", "blocks of 4 KiB that these took"},
			{"unchanged", "number", "bytes that were in place already"},
			{"reused", "number", "bytes of chunks that were made from what another slot holds"},
		}},
		{"release", "what inspect prints", []field{
			{"ref", "string", "URL or path of the bundle"},
			{"version", "string", "of the release"},
			{"sequence", "number", "orders releases"},
			{"floor", "number", "lowest sequence that may be installed after it"},
			{"digest", "string", "of the manifest, the release's identity"},
			{"compatible", "array of string", "devices it is made for"},
			{"created", "string", "the signed time"},
			{"key_ids", "array of string", "keys whose signatures were verified"},
			{"target", "string", "slot it would be written to"},
			{"mode", "string", "store or stream"},
			{"minimum", "number", "bytes to download if all that can be here is here"},
			{"expected", "number", "bytes to download with the chosen recipes"},
			{"maximum", "number", "bytes to download if every delta or block fails"},
			{"images", "array of object", "the images"},
		}},
		{"image", "one of the images of release", []field{
			{"class", "string", "slot class, as in rootfs"},
			{"size", "number", "of the image"},
			{"digest", "string", "of the image"},
			{"build_id", "string", "from the image's os-release"},
			{"recipe", "string", "full, blocks, delta or carried"},
			{"download", "number", "bytes for that recipe"},
		}},
		{"detached", "what install --detach prints", []field{
			{"job", "number", "the job's number"},
		}},
	}
}
