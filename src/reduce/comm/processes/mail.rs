//! Small messages between ranks, ahead of the bulk data and beside it.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

use crate::reduce::comm::{Collective, Fault, Reduction};

/// Room for the longest mail. Less than any MPI's limit for messages that leave at once.
pub(super) const CAPACITY: usize = 4000;
/// Of a reason's characters, and of a list's ranks, as many travel.
const LONGEST: usize = 300;

/// One rank's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    pub kind: Kind,
    pub bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Blocks(Collective),
    /// So many.
    Sections(usize),
    Reduction(Reduction),
}

impl Call {
    pub fn describe(&self) -> String {
        match self.kind {
            Kind::Blocks(collective) => format!("{collective:?} of {} bytes", self.bytes),
            Kind::Sections(count) => format!("{count} sections of {} bytes", self.bytes),
            Kind::Reduction(reduction) => format!("{reduction:?} of {} bytes", self.bytes),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Mail {
    /// The sender has made its next call.
    Call(Call),
    /// The sender makes no more calls.
    Left,
    /// The communicator is broken, and why.
    Fault(Fault),
    /// The sender asks who is there.
    Ask,
    /// The sender is there.
    Here,
}

impl Mail {
    /// As text, shortened where it is long.
    pub fn encode(&self) -> Vec<u8> {
        let mut mail = self.clone();
        match &mut mail {
            Self::Fault(Fault::Deadline { waiting_on, .. }) => waiting_on.truncate(LONGEST),
            Self::Fault(Fault::Aborted { reason, .. } | Fault::Transport { reason, .. }) => {
                *reason = reason.chars().take(LONGEST).collect();
            }
            _ => {}
        }
        serde_json::to_vec(&mail).unwrap_or_default() // maps with other keys than text fail: no such
    }

    /// `None`: not such mail.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_arrives_as_sent_or_shorter() {
        let call = Call { kind: Kind::Blocks(Collective::AllToAll), bytes: usize::MAX };
        let deadline = |ranks| Fault::Deadline { sequence: 3, waiting_on: (0..ranks).collect() };
        let aborted = |len| Fault::Aborted {
            rank: 1,
            reason: "\u{1}\"é".chars().cycle().take(len).collect(),
        };
        for mail in [
            Mail::Call(call),
            Mail::Left,
            Mail::Here,
            Mail::Fault(deadline(7)),
            Mail::Fault(aborted(9)),
        ] {
            assert_eq!(Mail::decode(&mail.encode()), Some(mail));
        }
        for (long, short) in [(deadline(9000), deadline(300)), (aborted(9000), aborted(300))] {
            let bytes = Mail::Fault(long).encode();
            assert!(bytes.len() <= CAPACITY, "{}", bytes.len());
            assert_eq!(Mail::decode(&bytes), Some(Mail::Fault(short)));
        }
        assert_eq!(Mail::decode(b"{}"), None);
    }
}
