//! Bulk data over TCP: a connection's messages are in the same order on both sides, and their lengths are
//! known, so that bytes follow each other with nothing between.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::Arc;

use super::super::processes::{self, Failed, Memory, Piece, Started, check_pieces};
use super::channel::{Channel, failed, is_gone};
use crate::Buffer;

/// Messages on their way.
#[derive(Debug)]
pub(super) struct Transfer {
    channel: Arc<Channel>,
    memory: Vec<Memory>,
    messages: Vec<Message>,
    /// Of each rank, messages that are sent to it, in order; and received from it.
    sends: Vec<VecDeque<usize>>,
    receives: Vec<VecDeque<usize>>,
    lost: Option<usize>,
}

#[derive(Debug)]
struct Message {
    piece: Piece,
    receives: bool,
    /// Bytes that have moved.
    moved: usize,
}

impl Message {
    fn pending(&self) -> bool {
        self.moved < self.piece.len
    }
}

/// Moves a message on; how many bytes, or none if the other side is gone.
fn advance(
    message: &mut Message,
    memory: &mut Memory,
    channel: &Channel,
) -> Result<Option<usize>, Failed> {
    let Message { piece, receives, moved } = message;
    let rest = piece.start + *moved..piece.start + piece.len;
    let bulk = channel.bulk[piece.peer].as_ref();
    let Some(mut stream) = bulk else { return Ok(None) };
    let here = "memory of the CPU, by the caller's promise";
    let outcome = match (&mut *memory, *receives) {
        (Memory::Own(buffer), true) => {
            let mut view = buffer.view_mut(rest).map_err(outside)?;
            stream.read(view.host().expect(here))
        }
        (memory, _) => {
            let view = memory.buffer().view(rest).map_err(outside)?;
            stream.write(view.host().expect(here))
        }
    };
    match outcome {
        Ok(0) => Ok(None),
        Ok(bytes) => {
            *moved += bytes;
            Ok(Some(bytes))
        }
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(Some(0))
        }
        Err(error) if is_gone(error.kind()) => Ok(None),
        Err(error) => Err(failed(if *receives { "recv" } else { "send" }, &error)),
    }
}

fn outside(error: crate::Error) -> Failed {
    Failed { call: "exchange_sections", reason: error.to_string() }
}

impl processes::Transfer for Transfer {
    type Channel = Channel;

    fn new(channel: &Arc<Channel>, memory: Vec<Memory>, capacity: usize) -> Result<Self, Failed> {
        let ranks = channel.bulk.len();
        let (messages, none) = (Vec::with_capacity(capacity), vec![VecDeque::new(); ranks]);
        let (sends, channel) = (none.clone(), channel.clone());
        Ok(Self { channel, memory, messages, sends, receives: none, lost: None })
    }

    fn start(&mut self, out: &[Piece], into: &[Piece]) -> Result<Started, Failed> {
        let first = self.messages.len();
        let pending = self.messages.iter().filter(|message| message.pending());
        let pending = pending.map(|message| (message.piece, message.receives));
        check_pieces(&self.memory, pending, out, into)?;
        for (receives, pieces) in [(true, into), (false, out)] {
            let queues = if receives { &mut self.receives } else { &mut self.sends };
            for &piece in pieces {
                queues[piece.peer].push_back(self.messages.len());
                self.messages.push(Message { piece, receives, moved: 0 });
            }
        }
        let middle = first + into.len();
        Ok(Started { receives: first..middle, sends: middle..self.messages.len() })
    }

    fn buffer(&self, memory: usize) -> &Buffer<u8> {
        self.memory[memory].buffer()
    }

    fn advance(&mut self) -> Result<bool, Failed> {
        let mut any = false;
        for queue in self.receives.iter_mut().chain(&mut self.sends) {
            while let Some(&first) = queue.front() {
                let message = &mut self.messages[first];
                let memory = &mut self.memory[message.piece.memory];
                match advance(message, memory, &self.channel)? {
                    None => {
                        self.lost.get_or_insert(message.piece.peer);
                        break;
                    }
                    Some(0) => break,
                    Some(_) => any = true,
                }
                if !message.pending() {
                    queue.pop_front();
                }
            }
        }
        Ok(any)
    }

    fn lost(&self) -> Option<usize> {
        self.lost
    }

    fn ended(&self, messages: Range<usize>) -> bool {
        self.messages[messages].iter().all(|message| !message.pending())
    }

    fn waiting_on(&self, messages: Range<usize>) -> Vec<usize> {
        let pending = self.messages[messages].iter().filter(|message| message.pending());
        let mut peers: Vec<usize> = pending.map(|message| message.piece.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    fn all(&self) -> Range<usize> {
        0..self.messages.len()
    }

    fn own(self) -> Option<Vec<Buffer<u8>>> {
        let own = |memory| match memory {
            Memory::Own(buffer) => Some(buffer),
            Memory::Shared(_) => None,
        };
        let ended = self.ended(self.all());
        ended.then(|| self.memory.into_iter().filter_map(own).collect())
    }
}
