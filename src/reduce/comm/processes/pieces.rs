//! What is moved, cut to messages, and whether they would be where they may.

#![forbid(unsafe_code)]

use std::ops::Range;

use super::{Failed, Memory};
use crate::reduce::comm::Moves;

/// Messages are cut to this many bytes: MPI counts in `int`.
const PIECE: usize = 64 << 20;
/// And reductions.
const REDUCED: usize = 16 << 20;

/// A piece of a transfer's memory, and the rank that it goes to or comes from, if it does.
#[derive(Debug, Clone, Copy)]
pub(in crate::reduce::comm) struct Piece {
    pub peer: usize,
    /// Which memory.
    pub memory: usize,
    pub start: usize,
    /// One byte at least.
    pub len: usize,
}

fn cut(
    size: usize,
    peer: usize,
    memory: usize,
    start: usize,
    len: usize,
) -> impl Iterator<Item = Piece> {
    let piece = move |at| Piece { peer, memory, start: start + at, len: size.min(len - at) };
    (0..len).step_by(size).map(piece)
}

/// A range as messages.
pub(super) fn pieces(
    peer: usize,
    memory: usize,
    start: usize,
    len: usize,
) -> impl Iterator<Item = Piece> {
    cut(PIECE, peer, memory, start, len)
}

/// The first bytes of a memory, to be reduced.
pub(super) fn reduced(rank: usize, memory: usize, len: usize) -> Vec<Piece> {
    cut(REDUCED, rank, memory, 0, len).collect()
}

/// What is sent, and what is received.
pub(super) type Messages = (Vec<Piece>, Vec<Piece>);

/// A rank's moves as messages, in the order in which its peers, of whom the one ahead is the first, expect them.
pub(super) fn messages(
    peers: &[usize],
    moves: &Moves,
    (sent, received): (usize, usize),
) -> Messages {
    let all = |ranges: &[Vec<Range<usize>>], peer: usize, memory: usize| {
        let ranges = ranges.get(peer).cloned().unwrap_or_default();
        ranges.into_iter().flat_map(move |range| pieces(peer, memory, range.start, range.len()))
    };
    let out = peers.iter().flat_map(|&peer| all(&moves.send, peer, sent)).collect();
    let into = peers.iter().rev().flat_map(|&peer| all(&moves.receive, peer, received)).collect();
    (out, into)
}

/// Whether messages would be where they may: `pending` are on their way, and whether each receives.
pub(in crate::reduce::comm) fn check_pieces(
    memory: &[Memory],
    pending: impl Iterator<Item = (Piece, bool)>,
    out: &[Piece],
    into: &[Piece],
) -> Result<(), Failed> {
    let failed = |reason: String| Err(Failed { call: "exchange_sections", reason });
    let inside = |piece: &Piece, receives: bool| match memory.get(piece.memory) {
        Some(Memory::Shared(_)) if receives => false,
        Some(memory) => {
            piece.start.checked_add(piece.len).is_some_and(|end| end <= memory.buffer().len())
        }
        None => false,
    };
    let started = into.iter().map(|&p| (p, true)).chain(out.iter().map(|&p| (p, false)));
    if !started.clone().all(|(piece, receives)| inside(&piece, receives)) {
        return failed("ranges outside their buffer".into());
    }
    // Reading twice is fine; what is written must be apart from everything else.
    let mut parts: Vec<_> = pending
        .chain(started)
        .filter(|(piece, _)| piece.len > 0)
        .map(|(piece, writes)| (piece.memory, piece.start, piece.start + piece.len, writes))
        .collect();
    parts.sort_unstable();
    let (mut memory, mut read, mut written) = (0, 0, 0);
    for (of, start, end, writes) in parts {
        if of != memory {
            (memory, read, written) = (of, 0, 0);
        }
        if start < written || (writes && start < read) {
            return failed(format!("bytes from {start} on are received, and used otherwise"));
        }
        match writes {
            true => written = end,
            false => read = read.max(end),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts of one sender are neither torn nor lost where they are longer than one message.
    #[test]
    fn pieces_cover_a_part_once() {
        for len in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 7] {
            let mut at = 5;
            for piece in pieces(2, 1, 5, len) {
                assert_eq!((piece.peer, piece.memory, piece.start), (2, 1, at));
                assert!((1..=PIECE).contains(&piece.len));
                at += piece.len;
            }
            assert_eq!(at, 5 + len);
        }
    }
}
