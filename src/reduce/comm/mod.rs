//! Communicators.

/// Why a collective failed.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A rank is gone.
    #[error("rank {rank} is lost")]
    PeerLost {
        /// The rank.
        rank: usize,
    },
}
